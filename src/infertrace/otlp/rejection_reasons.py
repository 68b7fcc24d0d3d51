"""Why a span cannot be sent by OTLP: it was damaged where it was kept."""

from __future__ import annotations

from typing import Final

REASONS: Final = (
    "",
    "not a Span message",
    "trace_id: expected 16 bytes, not all zero",
    "span_id: expected 8 bytes, not all zero",
    "parent_span_id: expected none or 8 bytes, not all zero",
    "links: expected ids of 16 and of 8 bytes, not all zero",
    "start_time_unix_nano: expected a time after 1970-01-01",
    "duration_nanos: expected at least 0",
    "duration_nanos: the span ends after the year 2262",
    "status: expected OK, ERROR or CANCELLED",
)
"""By the numbers that both translators use."""

(
    ACCEPTED,
    MALFORMED,
    BAD_TRACE_ID,
    BAD_SPAN_ID,
    BAD_PARENT,
    BAD_LINK,
    BAD_START,
    BAD_DURATION,
    BAD_END,
    BAD_STATUS,
) = range(len(REASONS))
