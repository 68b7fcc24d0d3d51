"""Describes where a result was measured, without which a figure says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
PACKAGES = (
    "infertrace-sdk",
    "grpcio",
    "protobuf",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp-proto-grpc",
    "ddtrace",
    "Cython",
    "pyperf",
)


def describe() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_average_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python_build": _python_build(),
        "packages": {package: version(package) for package in PACKAGES},
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def footer(environment: dict[str, Any]) -> str:
    packages = ", ".join(f"{key} {value}" for key, value in environment["packages"].items())
    commit = environment["commit"][:12] + "+" * environment["uncommitted_changes"]
    return (
        f"{environment['cpu']}, {environment['cores']} cores, {environment['system']}, "
        f"load {environment['load_average_1min']}; {environment['python']}, "
        f"{environment['python_build']}; {packages}; commit {commit}"
    )


def _python_build() -> str:
    """The compiler and the optimizations that built the interpreter."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    chosen = [name for name in ("--enable-optimizations", "--with-lto") if name in arguments]
    flags = sysconfig.get_config_var("OPT") or ""
    return f"{platform.python_compiler()}, {flags}, {' '.join(chosen) or 'no PGO, no LTO'}"


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
