"""Answers questions about stored spans over HTTP."""
