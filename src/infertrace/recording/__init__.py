"""Recording: the current span, a span's contents, and its encoding."""
