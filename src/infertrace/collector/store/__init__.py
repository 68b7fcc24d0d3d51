"""Keeps spans and the ledger of their producers, durably."""
