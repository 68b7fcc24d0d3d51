"""The columns of `record_batch`: one value for each finished span, from any buffer."""

from __future__ import annotations

import sys

from infertrace.generated.field_names import COUNT_FIELDS, MEASURE_FIELDS, ORDINAL_FIELDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

# Type codes of the struct module, and the size of a time in bytes.
_INTEGERS: Final = ("i", "l", "q")
_REALS: Final = ("f", "d")
_TIME_BYTES: Final = 8
_NUMBERS: Final = (*COUNT_FIELDS, *MEASURE_FIELDS, *ORDINAL_FIELDS)
# Prefixes of the struct module that mean this machine's byte order.
_NATIVE_ORDER: Final = "@=<" if sys.byteorder == "little" else "@=>!"


def views(start_ns: Any, duration_ns: Any, columns: dict[str, Any]) -> dict[str, memoryview]:
    """Validated views of all columns that are not None.

    Raises TypeError for a column that is not a buffer or holds another type, ValueError for one
    of another shape; the message names the column, what was expected and what it got.
    """
    for name in columns:
        if name not in _NUMBERS:
            allowed = ", ".join(_NUMBERS)
            raise TypeError(f"record_batch: {name!r} is no column; expected one of {allowed}")
    result = {
        "start_ns": _view("start_ns", start_ns),
        "duration_ns": _view("duration_ns", duration_ns),
    }
    result.update((name, _view(name, it)) for name, it in columns.items() if it is not None)
    rows = len(result["start_ns"])
    for name, view in result.items():
        if len(view) != rows:
            raise ValueError(
                f"record_batch: column {name!r}: expected {rows} rows, as start_ns has, "
                f"got {len(view)}"
            )
    return result


def _view(name: str, column: Any) -> memoryview:
    try:
        view = memoryview(column)
    except TypeError:
        raise TypeError(
            f"record_batch: column {name!r}: expected an array or another buffer, "
            f"got {type(column).__name__}"
        ) from None
    if view.ndim != 1:
        raise ValueError(f"record_batch: column {name!r}: expected one dimension, got {view.ndim}")
    code = view.format.lstrip(_NATIVE_ORDER)
    if name in MEASURE_FIELDS:
        fits, expected = code in _REALS, "float32 or float64"
    elif name in COUNT_FIELDS or name in ORDINAL_FIELDS:
        fits, expected = code in _INTEGERS, "int32 or int64"
    else:
        fits, expected = code in _INTEGERS and view.itemsize == _TIME_BYTES, "int64"
    if not fits:
        raise TypeError(
            f"record_batch: column {name!r}: expected {expected}, got items of format "
            f"{view.format!r}"
        )
    return view


def numbers(view: memoryview) -> tuple[Any, ...]:
    """The values of a validated view; memoryview itself reads only aligned items."""
    from struct import unpack

    code = {"i": {4: "i", 8: "q"}, "f": {4: "f", 8: "d"}}
    kind = "f" if view.format.lstrip(_NATIVE_ORDER) in _REALS else "i"
    return unpack(f"={len(view)}{code[kind][view.itemsize]}", view.tobytes())
