"""Where the processes of one user on a host find their common sender.

A directory that only this user can enter holds a socket for each kind of sender, and a lock beside
it. Whoever may not share a sender looks for one under another name: `sender_name`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from zlib import crc32

from infertrace import backend
from infertrace.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

_FOLDER: Final = "infertrace"
_NAME_CHARACTERS: Final = 16
_MODE: Final = 0o700
# What a Unix socket's path may take in `sockaddr_un`: 108 bytes on Linux, 104 elsewhere, with a
# zero at its end. The lock and the name that a socket has first are longer than its last one.
_MAX_PATH_BYTES: Final = 103 - len(".lock")
# What decides where a request goes, and what it trusts, beside what a tracer is told. A sender
# reads it from the environment of the process that started it.
_VARIABLES: Final = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "grpc_proxy",
    "no_grpc_proxy",
    "ssl_cert_file",
    "ssl_cert_dir",
)
_VARIABLES_OF_GRPC: Final = "grpc_"
# In another one, the same address or the same path may be something else.
_NAMESPACES: Final = ("net", "mnt", "pid", "user")


class NoDirectory(OSError):
    """There is no place in which processes of this user could find one another, and why."""


def find_directory(environ: Mapping[str, str]) -> str:
    """The directory of this user, made if it is not there; raises NoDirectory.

    In `XDG_RUNTIME_DIR`, where that is this user's, or in the directory for temporary files.
    Source: XDG Base Directory Specification.
    """
    if not hasattr(os, "geteuid"):
        raise NoDirectory("there are no users here")
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    path = os.path.join(environ.get("TMPDIR") or "/tmp", f"{_FOLDER}-{os.geteuid()}")
    if runtime and _is_ours(runtime):
        path = os.path.join(runtime, _FOLDER)
    if not os.path.isabs(path):
        raise NoDirectory(f"{path}: expected an absolute path")
    if len(os.fsencode(path)) + _NAME_CHARACTERS + len("/") > _MAX_PATH_BYTES:
        raise NoDirectory(f"{path}: too long for the path of a socket")
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, _MODE)
        _check(path)
    except OSError as error:
        if isinstance(error, NoDirectory):
            raise
        raise NoDirectory(f"{path}: {error.strerror}") from None
    return path


def _is_ours(path: str) -> bool:
    try:
        return os.stat(path).st_uid == os.geteuid()
    except OSError:
        return False


def _check(path: str) -> None:
    """What another user could have put there leads to that user."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise NoDirectory(f"{path}: expected a directory")
    if found.st_uid != os.geteuid():
        raise NoDirectory(f"{path}: it is user {found.st_uid}'s")
    if stat.S_IMODE(found.st_mode) != _MODE:
        raise NoDirectory(
            f"{path}: expected the mode {_MODE:o}, got {stat.S_IMODE(found.st_mode):o}"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise NoDirectory(f"{path}: cannot be written to")


def sender_name(paths: Sequence[str], environ: Mapping[str, str]) -> str:
    """A name for the sender that a process like this one would start, the same for each of them.

    paths: where that sender looks for its modules.
    """
    parts = [VERSION, backend.selected.NAME, sys.executable or "", *paths]
    parts += (
        f"{name}={value.rpartition('@')[2]}"  # without the credentials of a proxy
        for name, value in sorted(environ.items())
        if name.lower() in _VARIABLES or name.lower().startswith(_VARIABLES_OF_GRPC)
    )
    for namespace in _NAMESPACES:
        with contextlib.suppress(OSError):
            parts.append(os.readlink(f"/proc/self/ns/{namespace}"))
    root = os.stat("/")
    parts.append(f"{root.st_dev}:{root.st_ino}")
    # Not a hash of `hashlib`, which loads OpenSSL: nobody but this user makes these names.
    text = "\0".join(parts).encode(errors="surrogateescape")
    return f"{crc32(text):08x}{crc32(text[::-1]):08x}"
