"""The socket of an agent: whom a tracer trusts there.

An agent is mostly another user's. What says that it is the right one is the directory: only who may
write there can put a socket into it, so this must be nobody but root, the agent's user or our own.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_ROOT: Final = 0
_OF_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def check_agents_socket(path: str, socket: os.stat_result) -> None:
    """Raises PermissionError where somebody else may have put this socket there.

    socket: what `lstat` says of the path.
    """
    if not stat.S_ISSOCK(socket.st_mode):
        raise PermissionError(f"{path}: expected a socket")
    parent = os.path.dirname(path)
    directory = os.stat(parent)
    if directory.st_uid not in (_ROOT, socket.st_uid, os.geteuid()):
        raise PermissionError(f"{parent}: it is user {directory.st_uid}'s")
    if directory.st_mode & _OF_OTHERS:
        raise PermissionError(
            f"{parent}: expected a directory that only its owner may write to, got the mode "
            f"{stat.S_IMODE(directory.st_mode):o}"
        )
