"""The one place that chooses between what is compiled and its twin in Python."""

from __future__ import annotations

import os
import sys
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final, Protocol, TypeVar

    from infertrace.buffering.batch import Batch, PackedBatch
    from infertrace.buffering.ledger import DropReason
    from infertrace.buffering.spool_file import SpoolFile
    from infertrace.span import Span

    Part = TypeVar("Part")
    Roundtrip = Callable[[int, tuple[bytes, ...], int, int, float], bytes]
    # The number of the last batch; a batch that was not delivered, and the answer to it.
    LoopResult = tuple[int, Batch | None, bytes | OSError | None]
    RunDeliveryLoop = Callable[..., LoopResult | None]

    class Packing(Protocol):
        """Leaves the encoding of spans to somebody else."""

        @property
        def is_packing(self) -> bool:
            """Whether it does so now."""

        def pack(self, wanted: bool) -> None:
            """From now on give batches of packed spans, or of encoded ones."""

        def pack_crowd(self) -> bool:
            """Pack the spans that wait, where these are many; returns whether they were."""

        def encode(self, batch: PackedBatch) -> Batch:
            """The same, encoded here after all, without spans that cannot be."""

        def replace(self, batch: PackedBatch, encoded: Batch) -> None:
            """Count what `encode` gave in place of that batch."""

    class Recorder(Protocol):
        """What a backend does for one tracer: makes spans, and holds the finished ones."""

        enabled: bool
        service_name: str
        sample: tuple[bytes, int] | None
        """The encoded resource metrics and when they were taken (monotonic nanoseconds)."""
        anchor: int
        """Wall clock minus monotonic clock, nanoseconds."""

        def __init__(
            self, *, max_buffer_bytes: int, max_batch_bytes: int, wake: Callable[[], None]
        ) -> None: ...
        def set_sample_rate(self, rate: float) -> None: ...
        def put_encoded(self, record: bytes) -> None:
            """Take a finished span of others, encoded as an entry of a batch, with its tag."""

        @property
        def start_span(self) -> Callable[..., Span]: ...
        @property
        def start_step(self) -> Callable[..., Span]: ...
        @property
        def record_step(self) -> Callable[..., Span]: ...
        @property
        def record(self) -> Callable[..., Span]: ...
        @property
        def record_batch(self) -> Callable[..., int]: ...
        @property
        def run_delivery_loop(self) -> RunDeliveryLoop | None:
            """Deliver without the GIL for as long as all goes well, if it can."""

        @property
        def sample_process(self) -> Callable[..., bool] | None:
            """Sample the process without the GIL at an interval, for a time (s), if it can.

            With what `GpuSlot.address` says of a GPU that the sender process reads.
            """

        @property
        def sample_gpu(self) -> Callable[..., None] | None:
            """The same for a GPU."""

        def interrupt(self) -> None: ...
        def stop_sampling(self, stopped: bool = True) -> None: ...
        def take(self, partial: bool = True) -> Batch | None: ...
        def encode_some(self) -> bool:
            """Encode a few of the spans that are still objects; returns whether any are left."""

        def settle(self, batch: Batch, delivered: int, reason: DropReason) -> None: ...
        def counts(self) -> tuple[int, int, int, tuple[int, ...], int]: ...
        def sleep(self) -> None:
            """Call `wake` again with the next span that ends."""

        def close(self) -> None: ...
        def attach_spool(self, file: SpoolFile) -> None: ...
        def detach_spool(self) -> None: ...
        def share_memory(self, producer_id: bytes, resource: bytes) -> None:
            """Let finished spans lie in memory that a sender process maps too, if it can."""

        @property
        def memory_descriptor(self) -> int | None:
            """The file descriptor of that memory, while there is one."""

        @property
        def packing(self) -> Packing | None:
            """What packs finished spans, for somebody else to encode them, if it can."""

        def discard(self) -> None: ...
        def reset(self) -> None: ...

    class TracerBase(Protocol):
        """What a tracer is derived from, for a start_span() without a call in between."""

        @staticmethod
        def add_start_span(tracer: type, documentation: str) -> None:
            """Make it a method of that class, with this documentation."""

        @staticmethod
        def add_start_step(tracer: type, documentation: str) -> None:
            """The same for `start_step`."""

    class Backend(Protocol):
        """A module that offers this is a backend."""

        NAME: str

        # Properties, since a module's own type may be narrower.
        @property
        def NOOP(self) -> Span:  # noqa: N802
            """The span that records nothing."""

        @property
        def Recorder(self) -> type[Recorder]: ...  # noqa: N802
        @property
        def TracerBase(self) -> type[TracerBase]: ...  # noqa: N802

        @property
        def roundtrip(self) -> Roundtrip | None:
            """Write parts to a socket and read the answer, all without the GIL, if it can."""

        def monotonic_ns(self) -> int:
            """The clock of the spans, nanoseconds from an arbitrary origin; never goes back."""

        def current(self) -> Span | None:
            """The current span of this context (thread, task, generator step)."""

        def set_current(self, span: Span | None) -> None:
            """Make that span the current one of this context, and of later copies of it."""

        def exchange_current(self, span: Span | None) -> Span | None:
            """The same; returns the one before."""

        def restore_current(self, span: Span | None, previous: Span | None) -> None:
            """Where `span` is current, make `previous` so, or the live span around that."""


VARIABLE: Final = "INFERTRACE_BACKEND"
CHOICES: Final = ("auto", "native", "pure")


_NAMES: Final = (
    "NAME",
    "NOOP",
    "Recorder",
    "TracerBase",
    "current",
    "exchange_current",
    "monotonic_ns",
    "restore_current",
    "roundtrip",
    "set_current",
)


def select(choice: str) -> Backend:
    """The backend of that name; `auto` takes the compiled one where it can be imported.

    Raises ValueError for another name, and for `native` the error of its import.
    """
    if choice not in CHOICES:
        raise ValueError(f"{VARIABLE}: expected one of {', '.join(CHOICES)}, got {choice!r}")
    if choice != "pure":
        try:
            return complete(_native(), _NAMES)
        except ImportError:
            if choice == "native":
                raise
    return complete(_pure(), _NAMES)


# Written out here and wherever a part has two forms: PyInstaller looks for import statements.
def _native() -> Backend:
    import infertrace.recording.native as native

    return native


def _pure() -> Backend:
    import infertrace.recording.pure as pure

    return pure


def part(
    native: Callable[[], Part], pure: Callable[[], Part], names: Sequence[str], name: str | None
) -> Part:
    """A compiled part of the collector or its twin, of the backend `name` or of the selected one.

    All extensions are built together, so one variable chooses for all. Raises ImportError where
    the extension cannot be imported, or lacks one of `names`.
    """
    return complete(native() if (name or selected.NAME) == "native" else pure(), names)


def complete(module: Part, names: Sequence[str]) -> Part:
    """The module, if it has all these names: ImportError for one that was built from other code."""
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise ImportError(f"{module} lacks {', '.join(missing)}: expected one of this version")
    return module


def _check_interpreter(chosen: Backend) -> None:
    """Say what is not supported: docs/compatibility.md, "Interpreters".

    The compiled backend refuses other interpreters than the main one by itself, and has
    CPython switch the GIL on again.
    """
    if chosen.NAME == "pure" and _in_subinterpreter():
        raise ImportError(
            "infertrace does not support subinterpreters: import it in the main interpreter"
        )
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        import warnings

        warnings.warn(
            "infertrace is not proven to work without the GIL; switch it on with PYTHON_GIL=1",
            RuntimeWarning,
            stacklevel=3,
        )


def _in_subinterpreter() -> bool:
    module: Any
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            module = import_module(name)
        except ImportError:
            continue
        return bool(module.get_current() != module.get_main())
    return False


selected: Backend = select(os.environ.get(VARIABLE) or "auto")
_check_interpreter(selected)
