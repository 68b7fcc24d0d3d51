"""Checks that the imported files are ours: another project installs a package of this name."""

from __future__ import annotations

from importlib import metadata

from infertrace.commands.finding import NOTE, OK, PROBLEM, Finding
from infertrace.distribution import DISTRIBUTION, STRANGER

_CHECK = "installation"


def check_installation() -> Finding:
    """Whether another distribution has overwritten our files, or may do so."""
    try:
        ours = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return Finding(_CHECK, NOTE, f"{DISTRIBUTION} is not installed: this runs from its sources")
    foreign = _foreign_files(ours)
    try:
        stranger = metadata.version(STRANGER)
    except metadata.PackageNotFoundError:
        if not foreign:
            return Finding(_CHECK, OK, f"{DISTRIBUTION} {ours.version}")
        stranger = ""
    what = f"{STRANGER} {stranger}, another project, is installed too" if stranger else ""
    if foreign:
        what += f"{'; ' if what else ''}missing or not ours: {', '.join(foreign[:3])}"
    return Finding(
        _CHECK,
        PROBLEM if foreign else NOTE,
        f"{what}; pip uninstall {STRANGER}, then pip install --force-reinstall {DISTRIBUTION}",
    )


def _foreign_files(ours: metadata.Distribution) -> list[str]:
    """Our files that are missing, or differ in size from what the installer recorded."""
    foreign = []
    for file in ours.files or ():
        # The installer records no size for the bytecode that it compiles.
        if file.parts[0] != "infertrace" or file.size is None:
            continue
        path = file.locate()
        if not path.is_file() or path.stat().st_size != file.size:  # type: ignore[attr-defined]
            foreign.append(str(file))
    return foreign
