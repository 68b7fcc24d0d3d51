"""Answers queries about stored spans over HTTP."""
