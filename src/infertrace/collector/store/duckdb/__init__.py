"""Spans in DuckDB."""
