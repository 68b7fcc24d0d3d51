"""What a traced process tells its sender of itself, in the first frame."""

from __future__ import annotations

from infertrace.exporting.json_text import json_text
from infertrace.exporting.target import Target
from infertrace.named_tuple import NamedTuple


class Introduction(NamedTuple):
    """Holds credentials: not to be printed."""

    target: Target
    service_name: str = ""
    max_batch_bytes: int = 1024 * 1024
    """How large a batch of spans may be that the sender makes itself, of what was left to it."""
    spool_dir: str | None = None
    """Where the process keeps its spans too, for whoever comes after it."""
    gpu_interval_s: float = 0.0
    """How often it wants the host's GPUs read; 0 for never."""

    def encode(self) -> bytes:
        """As the body of a frame."""
        return json_text(self._asdict() | {"target": self.target._asdict()}).encode()

    @classmethod
    def decode(cls, body: bytes) -> Introduction:
        """Raises ValueError, TypeError or KeyError for what is none.

        Leaves out what it does not know: an agent may be older than the processes that it serves.
        """
        import json  # not where a tracer is made

        members = json.loads(body)
        known = {name: value for name, value in dict(members).items() if name in cls._fields}
        target = {k: v for k, v in dict(members["target"]).items() if k in Target._fields}
        known["gpu_interval_s"] = float(known.get("gpu_interval_s", 0))
        return cls(**{**known, "target": Target(**target)})
