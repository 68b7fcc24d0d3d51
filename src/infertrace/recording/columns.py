"""The columns of `record_batch`: one value for each finished span, from buffers and sequences."""

from __future__ import annotations

import sys

from infertrace.generated.field_names import (
    COUNT_FIELDS,
    INTERVALS_FIELDS,
    MEASURE_FIELDS,
    ORDINAL_FIELDS,
    TEXT_FIELDS,
)
from infertrace.trace_context import parse_traceparent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

# Type codes of the struct module, and the size of a time in bytes.
_INTEGERS: Final = ("i", "l", "q")
_REALS: Final = ("f", "d")
_TIME_BYTES: Final = 8
_NUMBERS: Final = dict.fromkeys((*COUNT_FIELDS, *MEASURE_FIELDS, *ORDINAL_FIELDS))
PARENTS, TRACE_IDS, TAGS = "parents", "trace_ids", "tags"
# Columns of objects; the first three say where a row's span is, and what else it has.
_OBJECTS: Final = (PARENTS, TRACE_IDS, TAGS, *TEXT_FIELDS, *INTERVALS_FIELDS)
_TRACE_ID_DIGITS: Final = 32
# Prefixes of the struct module that mean this machine's byte order.
_NATIVE_ORDER: Final = "@=<" if sys.byteorder == "little" else "@=>!"


def views(start_ns: Any, duration_ns: Any, columns: dict[str, Any]) -> dict[str, memoryview]:
    """Validated views of all columns that are not None.

    Raises TypeError for a column that is not a buffer or holds another type, ValueError for one
    of another shape; the message names the column, what was expected and what it got.
    """
    for name in columns:
        if name not in _NUMBERS and name not in _OBJECTS:
            allowed = ", ".join((*_NUMBERS, *_OBJECTS))
            raise TypeError(f"record_batch: {name!r} is no column; expected one of {allowed}")
    result = {
        "start_ns": _view("start_ns", start_ns),
        "duration_ns": _view("duration_ns", duration_ns),
    }
    result.update(
        (name, _view(name, it))
        for name, it in columns.items()
        if it is not None and name in _NUMBERS
    )
    rows = len(result["start_ns"])
    for name, view in result.items():
        if len(view) != rows:
            raise _rows_error(name, len(view), rows)
    return result


def objects(columns: dict[str, Any], rows: int) -> dict[str, Any]:
    """The columns of objects that are not None: lists or other sequences of that many rows.

    Raises as `views` does.
    """
    result: dict[str, Any] = {}
    if columns.keys() <= _NUMBERS.keys():
        return result
    for name in _OBJECTS:  # in this order
        column = columns.get(name)
        if column is None:
            continue
        is_sequence = hasattr(type(column), "__len__") and hasattr(type(column), "__getitem__")
        if not is_sequence or hasattr(type(column), "keys") or type(column) in (str, bytes):
            raise TypeError(
                f"record_batch: column {name!r}: expected a sequence with a value for each row, "
                f"got {type(column).__name__}"
            )
        if len(column) != rows:
            raise _rows_error(name, len(column), rows)
        result[name] = column
    return result


def trace_id(value: object) -> int:
    """The number of a trace id of 32 hexadecimal digits; 0 for anything else."""
    if type(value) is not str or len(value) != _TRACE_ID_DIGITS:
        return 0
    context = parse_traceparent(f"00-{value}-{1:016x}-01")
    return 0 if context is None else context.trace_id


def _rows_error(name: str, got: int, rows: int) -> ValueError:
    return ValueError(
        f"record_batch: column {name!r}: expected {rows} rows, as start_ns has, got {got}"
    )


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
