"""The result of decoding the bytes of a request, by either decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class DecodedSpans:
    """The spans of one request.

    `rows` are the valid ones in their order, with the columns of `DECODED_COLUMNS`; `span_count`
    counts all. `rejections` says, by position among all, why the others were left out, as an index
    of `span_validity.REASONS`. `others` are the bytes of all fields that are not spans.
    """

    rows: pa.RecordBatch
    span_count: int
    rejections: Mapping[int, int]
    others: bytes
