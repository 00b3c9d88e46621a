//! Hostile packages: each is refused with its own reason, no server is hurt, and what was found out is
//! not found out twice.
