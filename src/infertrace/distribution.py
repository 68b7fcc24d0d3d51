"""The name of the distribution that pip installs; pyproject.toml says it once more."""

DISTRIBUTION = "infertrace-sdk"
STRANGER = "infertrace"
"""The distribution of that name is another project's; its files would overwrite ours."""


def missing(module: str, extra: str) -> str:
    """What to say where an optional dependency is not installed."""
    return f"{module} is not installed: pip install '{DISTRIBUTION}[{extra}]'"
