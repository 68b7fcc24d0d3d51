"""Spans in PostgreSQL and TimescaleDB."""
