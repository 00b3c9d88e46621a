"""Tests of a running server with the clients that people already have, unmodified.

`cargo xtask test` starts the server, publishes the example models and says where it listens.
"""
