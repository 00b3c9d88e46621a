"""Clients of other servers, with a Python of their own (`assets/requirements-peers.txt`)."""
