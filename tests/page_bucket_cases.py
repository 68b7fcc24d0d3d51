"""The cases that hold the buckets of the page to those of the collector.

`python tests/page_bucket_cases.py` writes them to page/tests/bucket_cases.json.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

from infertrace.collector.store.exponential_buckets import ZERO_BUCKET, quantile
from infertrace.wire.token_intervals import bucket_of

CASES = Path(__file__).parents[1] / "page" / "tests" / "bucket_cases.json"


def cases_text() -> str:
    """The file's text."""
    draw = random.Random(15)
    edges = [round(2 ** (number / 8)) for number in range(0, 39 * 8, 3)]
    values = {1, *(edge + by for edge in edges for by in (-1, 0, 1) if edge + by > 0)}
    values |= {draw.randrange(1, 2**40) for _ in range(200)}
    quantiles = []
    for _ in range(40):
        counts = Counter(bucket_of(draw.randrange(1, 10**9)) for _ in range(draw.randrange(0, 60)))
        counts[ZERO_BUCKET] = draw.randrange(0, 3)
        fraction = draw.choice((0.01, 0.5, 0.95, 0.99, 1))
        quantiles.append(
            {
                "counts": sorted(counts.items()),
                "fraction": fraction,
                "quantile": quantile(counts, fraction),
            }
        )
    cases = {
        "buckets": [[0, ZERO_BUCKET], *([value, bucket_of(value)] for value in sorted(values))],
        "quantiles": quantiles,
    }
    return json.dumps(cases, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    CASES.write_text(cases_text(), encoding="utf-8")
