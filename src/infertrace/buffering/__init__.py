"""Buffering: finished spans between the traced loop and the exporter, bounded by bytes."""
