"""What both backends take for granted of engines and their steps."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DEFAULT_ENGINE: Final = "0"
STEP_OPERATION: Final = "step"
MAX_ENGINES: Final = 1024
"""The steps of so many engines are numbered in a process; a name for each step would grow."""

ENGINES: Final = f"one of at most {MAX_ENGINES} engines of a process"
MEMBERS: Final = (
    "prefill: pairs of a request's span and its tokens, each with an optional bool, whether these "
    "complete the input; decode: requests' spans, or such pairs"
)
CAPACITY: Final = (
    "the largest possible batch: an integer of 1 or more, and not below the batch's size"
)
