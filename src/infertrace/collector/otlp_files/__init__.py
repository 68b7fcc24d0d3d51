"""Stored spans as files of OTLP in JSON, one request a line."""
