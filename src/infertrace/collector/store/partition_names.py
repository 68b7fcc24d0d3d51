"""Turns model names into distinct folder names that every file system can hold.

As in any Hive partition, bytes that a path cannot hold are written as %XX, which readers decode.
So are capital letters, as some file systems ignore case, and a dot at the end, which Windows drops.
A name that is too long is cut, and a hash of the whole name is appended.
"""

from __future__ import annotations

import hashlib
import re

MAX_PLAIN_BYTES = 180  # of a name that is written whole
MAX_CUT_BYTES = 215  # of the beginning of one that is not; with its hash it is longer than those
HASH_BYTES = 16
NULL_NAME = "__HIVE_DEFAULT_PARTITION__"  # of no model; as the name of one it has no capitals

_SPECIAL = re.compile(rb"[^a-z0-9_~.-]|\.\Z", re.DOTALL)


def partition_name(name: str) -> str:
    """At most 248 characters, all of them ASCII; different for every name."""
    whole = _encoded(name)
    if len(whole) <= MAX_PLAIN_BYTES:
        return whole
    digest = hashlib.blake2b(name.encode(), digest_size=HASH_BYTES).hexdigest()
    beginning = ""
    for character in name:
        encoded = _encoded(character)
        if len(beginning) + len(encoded) > MAX_CUT_BYTES:
            break
        beginning += encoded
    return f"{beginning}~{digest}"


def _encoded(text: str) -> str:
    return _SPECIAL.sub(lambda found: b"%%%02X" % found[0][0], text.encode()).decode("ascii")
