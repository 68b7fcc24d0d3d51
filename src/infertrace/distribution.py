"""What pip installs, by its name: the one place that says it, but for pyproject.toml."""

DISTRIBUTION = "infertrace-sdk"
STRANGER = "infertrace"
"""On the package index, another project, whose files would take the places of ours."""


def missing(module: str, extra: str) -> str:
    """What to say where an optional dependency is not installed."""
    return f"{module} is not installed: pip install '{DISTRIBUTION}[{extra}]'"
