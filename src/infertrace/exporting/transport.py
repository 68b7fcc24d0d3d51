"""What the exporter asks of a way to a collector."""

from __future__ import annotations

from collections.abc import Callable

from infertrace.exporting.answer import CannotEncode
from infertrace.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from infertrace.backend import RunDeliveryLoop
    from infertrace.buffering.batch import Batch
    from infertrace.exporting.answer import Answer
    from infertrace.exporting.envelope import Request
    from infertrace.exporting.packed_request import PackedRequest
else:
    Protocol = object


class LoopResult(NamedTuple):
    """Why a delivery loop came to its end."""

    batch_sequence: int
    """The number of the last batch that the loop took."""
    batch: Batch | None
    """One that it took and that was not accepted as a whole, if there is one."""
    outcome: Callable[[], Answer] | None
    """Answers, or raises, as `send` does for that batch; without a batch, the connection is of no
    more use. None: the batch was not sent, or nothing went wrong."""


class Transport(Protocol):
    """One connection; used by one thread at a time, but for `close`.

    A transport derives from this class, so that a type checker compares both, and so that it has
    what is optional.
    """

    def send(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        """Deliver an envelope with that many spans, or raise an error of `answer.py`."""

    def send_packed(self, request: PackedRequest, span_count: int, timeout_s: float) -> Answer:
        """Optional: the same for spans that the other end encodes; raises CannotEncode too."""
        raise CannotEncode("spans are encoded before they are sent by this transport")

    def close(self) -> None:
        """Give up what is in flight; any thread may ask."""

    def after_fork_in_child(self) -> None:
        """Let go of it in a forked child, and leave what the parent goes on to use alone."""

    def run_delivery_loop(
        self,
        run: RunDeliveryLoop,
        producer: bytes,
        resource: bytes,
        batch_sequence: int,
        *,
        timeout_s: float,
        interval_s: float,
        stay_s: float,
    ) -> LoopResult | None:
        """Optional: have a recorder's delivery loop send over this connection, without the GIL.

        run, and what follows it: `Recorder.run_delivery_loop` and its arguments. Returns None
        where this transport cannot, or not now.
        """
        return None

    def stop_waiting(self) -> None:
        """Optional: end the wait of the thread that uses it, without a word to the other end."""
        return

    @property
    def sender_pid(self) -> int | None:
        """Optional: the process that sends for this one, for whoever looks into that."""
        return None
