"""Which backend adds up histograms of token intervals."""

from __future__ import annotations

from typing import Protocol

from infertrace import backend


class IntervalSums(Protocol):
    """A module that offers this adds up histograms."""

    def interval_sums(self, messages: list[bytes]) -> list[int]:
        """The sums of the counts of all buckets, the first of them LOWEST_BUCKET."""


def _native() -> IntervalSums:
    import infertrace.collector.store.native_interval_sums as native

    return native


def _pure() -> IntervalSums:
    import infertrace.collector.store.pure_interval_sums as pure

    return pure


def select(name: str | None = None) -> IntervalSums:
    """The part of that backend, `native` or `pure`, or of the selected one; raises ImportError."""
    return backend.part(_native, _pure, ("interval_sums",), name)


selected: IntervalSums = select()
