"""Metrics and logs, which senders direct at the same endpoint, and infertrace does not take."""

from __future__ import annotations

import logging

SIGNALS = {"metrics": "OTEL_METRICS_EXPORTER", "logs": "OTEL_LOGS_EXPORTER"}
"""The variable of the sender that turns each off."""

_log = logging.getLogger(__name__)


class OtherSignals:
    """Refuses them, and says so in the log once for each."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def refusal(self, signal: str) -> str:
        """What the sender is told."""
        reason = (
            f"infertrace takes traces, not {signal}: set {SIGNALS[signal]}=none in the program "
            "that sends them"
        )
        if signal not in self._logged:
            self._logged.add(signal)
            _log.warning("%s were sent here and refused: %s", signal, reason)
        return reason
