"""Recording: the current span, what a span holds, and the bytes it becomes."""
