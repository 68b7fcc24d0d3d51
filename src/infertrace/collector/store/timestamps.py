"""Points in time as RFC 3339 text, exact to the nanosecond."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache

NANOS_PER_MS = 1_000_000
NANOS_PER_SECOND = 1_000_000_000
MAX_UNIX_NANOS = 2**63 - 1  # the year 2262: the last moment that a column can hold

_EPOCH = datetime(1970, 1, 1)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))"
)


def format_rfc3339(unix_nanos: int) -> str:
    """Nanoseconds since 1970 (any signed 64-bit number) as `2026-01-31T12:00:00.000000000Z`."""
    seconds, nanos = divmod(unix_nanos, NANOS_PER_SECOND)
    return f"{_second(seconds)}.{nanos:09d}Z"


@lru_cache(maxsize=1_024)  # the rows of an answer lie close together
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 date and time; ValueError for anything else."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 date and time: {text!r}")
    date, time, fraction, sign, hours, minutes = match.groups()
    moment = datetime.fromisoformat(f"{date}T{time}")
    if sign is not None:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        moment = moment - offset if sign == "+" else moment + offset
    since_epoch = moment - _EPOCH
    seconds = since_epoch.days * 86_400 + since_epoch.seconds
    return seconds * NANOS_PER_SECOND + int((fraction or "0").ljust(9, "0"))
