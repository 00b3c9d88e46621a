"""Tests of the asset pipeline; `cargo xtask test` runs them with the pinned Python packages."""
