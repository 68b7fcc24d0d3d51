"""The fields that a span's user sets, by kind.

Generated from proto/fields.toml by tools/generate.py, which is where to change it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

TEXT_FIELDS: Final = (
    "model_version",
    "framework",
    "pipeline_stage",
    "request_id",
    "finish_reason",
    "engine",
    "membership",
)
COUNT_FIELDS: Final = (
    "batch_size",
    "input_tokens",
    "output_tokens",
    "queue_depth",
    "cached_input_tokens",
    "reasoning_output_tokens",
    "preemption_count",
    "step_count",
    "prefill_tokens",
    "decode_tokens",
)
ORDINAL_FIELDS: Final = (
    "step_index",
    "first_step",
    "last_step",
)
INTERVALS_FIELDS: Final = ("token_intervals",)
MEASURE_FIELDS: Final = {
    "sequence_length": 3.4028234663852886e38,
    "cache_hit_rate": 1.0,
    "queue_wait_time_ms": 3.4028234663852886e38,
    "batch_fill_ratio": 1.0,
    "time_to_first_token_ms": 3.4028234663852886e38,
    "inter_token_latency_ms": 3.4028234663852886e38,
    "scheduled_after_ms": 3.4028234663852886e38,
    "max_inter_token_latency_ms": 3.4028234663852886e38,
    "kv_cache_usage": 1.0,
}
"""Each with its largest value."""
