"""The names of models as names of folders, which every file system can hold and tells apart.

As in any Hive partition, bytes that a path may not hold are written as %XX, and readers undo it.
So are capital letters, for the sake of file systems to which they are small ones, and a dot at the
end, which Windows drops. A name that is too long is cut, and goes on with a hash of all of it.
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
