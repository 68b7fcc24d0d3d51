"""The version, written here only: pyproject.toml reads it from this line."""

VERSION = "0.1.0"
