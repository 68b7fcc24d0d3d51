"""Starts a Python process that outlives the one that starts it, and is nobody's zombie.

It is a grandchild: what is between the two ends at once, and is waited for. It has a session of its
own, so that neither a terminal nor a signal to the starter's process group reaches it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

_SHELL: Final = "/bin/sh"
_SHELL_PROGRAM: Final = '"$@" &'
# Where there is no shell, as in small images of containers.
_FORK_PROGRAM: Final = "import os, sys; os.fork() or os.execv(sys.argv[1], sys.argv[1:])"
# -I: nothing of the environment, or of the current directory, decides what it imports.
_PYTHON: Final = ("-I", "-c")


def start_detached(
    program: str, arguments: Sequence[str], *, descriptor: int, environ: Mapping[str, str]
) -> None:
    """Start it; raises OSError.

    program: Python; `os.setsid()` is its part. descriptor: the only one that it inherits, beside
    the standard ones, which are /dev/null.
    """
    import subprocess  # slow to load, and for few processes

    command = [sys.executable, *_PYTHON, program, *arguments]
    if os.path.exists(_SHELL):
        between = [_SHELL, "-c", _SHELL_PROGRAM, "sh"]
    else:
        between = [sys.executable, "-S", *_PYTHON, _FORK_PROGRAM]
    process = subprocess.Popen(
        [*between, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(descriptor,),
        cwd="/",
        env=dict(environ),
        start_new_session=True,
    )
    code = process.wait()
    if code:
        raise ChildProcessError(f"{between[0]} ended with code {code}")


def reap(pid: int) -> None:
    """Wait for a process that has ended, if this one is who has to: init, in a container."""
    if hasattr(os, "waitpid"):
        try:
            os.waitpid(pid, os.WNOHANG)
        except OSError:  # not ours to wait for
            return
