"""Exporting: finished spans leave the process in the background, in batches."""
