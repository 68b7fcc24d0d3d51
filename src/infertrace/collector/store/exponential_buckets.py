"""The exponential buckets of every distribution: bounds, quantiles, their SQL.

Bucket i holds what is more than 2**(i / 8) and at most 2**((i + 1) / 8), as in the histograms of
token intervals (wire/token_intervals.py, which decides on integers), so a value is known within 4.4
percent, and distributions are merged by adding their counts. What is 0 or less has a bucket of its
own. page/buckets.ts is the twin of this in the browser.
Source: OpenTelemetry, "Metrics Data Model", ExponentialHistogram with scale 3 and its zero count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from infertrace.wire.token_intervals import (
    BUCKETS_PER_DOUBLING,
    HIGHEST_BUCKET,
    LOWEST_BUCKET,
    upper_bound_ns,
)

ZERO_BUCKET = LOWEST_BUCKET - 1

# A logarithm may come out some ulps too large where the value is a power of two, a bucket's upper
# bound. No integer up to 2**39 lies so close above another bound.
_ROUNDING = "4e-13"
_BUCKET = (
    "CASE WHEN {value} <= 0 THEN {zero} WHEN {value} > 0 THEN greatest({lowest}, "
    "least({highest}, CAST(ceil({logarithm} * {per_doubling} - {rounding}) AS integer) - 1)) END"
)


def bucket_sql(value: str, log2: str) -> str:
    """The bucket of a number in SQL, NULL for NULL; `log2` is the dialect's, with {value}."""
    return _BUCKET.format(
        value=value,
        zero=ZERO_BUCKET,
        lowest=LOWEST_BUCKET,
        highest=HIGHEST_BUCKET,
        logarithm=log2.format(value=value),
        per_doubling=BUCKETS_PER_DOUBLING,
        rounding=_ROUNDING,
    )


def upper_bound(bucket: int) -> float:
    """The largest value of a bucket."""
    return 0.0 if bucket <= ZERO_BUCKET else upper_bound_ns(bucket)


def quantile(counts: Mapping[int, int], fraction: float) -> float | None:
    """The value that a share, 0 to 1, is not larger than; None without any.

    Within a bucket it is interpolated on the logarithmic scale of the buckets.
    """
    return next(iter(quantiles(counts, [fraction])), None)


def quantiles(counts: Mapping[int, int], fractions: Iterable[float]) -> list[float]:
    """The same for several shares, in ascending order; none without any value."""
    ordered = sorted(item for item in counts.items() if item[1])
    if not ordered:
        return []
    total = sum(count for _, count in ordered)
    found = []
    at = below = 0
    for fraction in fractions:
        wanted = fraction * total
        while at < len(ordered) and below + ordered[at][1] < wanted:
            below += ordered[at][1]
            at += 1
        if at < len(ordered):
            bucket, count = ordered[at]
            found.append(_inside(bucket, (wanted - below) / count))
        else:  # by rounding
            found.append(upper_bound(ordered[-1][0]))
    return found


def _inside(bucket: int, share: float) -> float:
    if bucket <= ZERO_BUCKET:
        return 0.0
    low, high = upper_bound_ns(bucket - 1), upper_bound_ns(bucket)
    return float(low * (high / low) ** share)
