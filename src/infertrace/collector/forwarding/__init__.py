"""Durable spans go on to other collectors, beside the road of the answer to their senders."""
