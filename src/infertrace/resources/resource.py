"""The resource: what all spans of one process have in common, by OpenTelemetry's names."""

from __future__ import annotations

import os
import sys

from infertrace.configuration import Settings
from infertrace.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_SDK_NAME: Final = "infertrace"


def describe_resource(settings: Settings) -> dict[str, str | int]:
    """Detected attributes under the ones that the user gave."""
    return {
        "host.name": _host_name(),
        "process.pid": os.getpid(),
        "process.runtime.name": sys.implementation.name,
        "process.runtime.version": sys.version.split()[0],
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": _SDK_NAME,
        "telemetry.sdk.version": VERSION,
        **settings.resource_attributes,
        "service.name": settings.service_name,
    }


def _host_name() -> str:
    if hasattr(os, "uname"):
        return os.uname().nodename
    import platform  # slow to load

    return platform.node()
