"""Turns what OTLP says of spans into infertrace's own messages."""
