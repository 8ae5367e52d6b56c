"""The version of this sidecar, as pyproject.toml has it (a test compares the two)."""

VERSION = "0.1.0"
