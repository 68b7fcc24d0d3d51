"""The fields of the compiled recorder."""

from __future__ import annotations

import re
import textwrap

from generator.field_table import Field, Table, TableError
from generator.python_code import _parameters

HEADER = "# Generated from proto/fields.toml by tools/generate.py, which is where to change it.\n"
MAX_PRESENCE_BITS = 32
WIDTH = 100


# Cython has no include in the body of a class.
_REGION = re.compile(
    r"^    # generated: (\w+)\n.*?^    # end of what is generated\n", re.MULTILINE | re.DOTALL
)


def span_with_fields(span: str, table: Table) -> str:
    """The text of span.pxi with members and setters in its regions."""
    made = {"text_members": text_members, "span_fields": span_fields, "noop_setters": noop_setters}

    def region(match: re.Match[str]) -> str:
        code = textwrap.indent(made.pop(match[1])(table), "    ")
        return f"    # generated: {match[1]}\n{code}    # end of what is generated\n"

    completed = _REGION.sub(region, span)
    if made:
        raise ValueError(f"span.pxi: no region {', '.join(made)}")
    return completed


def _numbers(table: Table) -> list[Field]:
    return [*table.settable("count"), *table.measures]


def text_members(table: Table) -> str:
    """Members of the class Extras."""
    names = [it.name for it in table.settable("text")]
    has_any = "".join(f"        or self.{name}\n" for name in names[1:])
    sizes = "".join(
        f"    if self.{name} is not None:\n        size += utf8_size(self.{name})\n"
        for name in names
    )
    return (
        f"cdef str {', '.join(names)}\n\n"
        "cdef inline bint has_inference_text(self):\n    return bool(\n"
        f"        self.{names[0]}\n{has_any}    )\n\n"
        "cdef inline Py_ssize_t inference_text_bytes(self) except -1:\n"
        f"    cdef Py_ssize_t size = 0\n{sizes}    return size\n"
    )


def span_fields(table: Table) -> str:
    """Members and setters of the class Span."""
    counts = ", ".join(it.name for it in table.settable("count"))
    measures = ", ".join(it.name for it in table.measures)
    lines = [*_wrapped("cdef int32_t ", counts), *_wrapped("cdef float ", measures)]
    for method in table.methods:
        lines += ["", f"def {method.name}({_parameters(method, annotations=False)}):"]
        for it in method.fields:
            body = _setter_body(it)
            if not method.is_single:
                lines.append(f"    if {it.method[1]} is not None:")
                body = [f"    {line}" for line in body]
            lines += body
    return "\n".join(lines) + "\n"


def _wrapped(start: str, names: str) -> list[str]:
    return [f"{start}{line.rstrip(',')}" for line in textwrap.wrap(names, WIDTH - len(start) - 8)]


def _setter_body(it: Field) -> list[str]:
    parameter = it.method[1]
    if it.kind_name == "text":
        return [
            f'    text = self.cleaned_text("{it.name}", {parameter})',
            "    if text is not None:",
            f"        self.more().{it.name} = text",
        ]
    return _put(it, "self", parameter)


def _put(it: Field, span: str, value: str) -> list[str]:
    arguments = [f'"{it.name}"', value, f"&{span}.{it.name}"]
    if it.kind_name != "count":
        arguments.append(it.kind.upper)
    arguments.append(f"HAS_{it.constant}")
    method = "put_count" if it.kind_name == "count" else "put_measure"
    line = f"    {span}.{method}({', '.join(arguments)})"
    if len(line) <= WIDTH - 8:
        return [line]
    return [f"    {span}.{method}(", *(f"        {one}," for one in arguments), "    )"]


def noop_setters(table: Table) -> str:
    """Setters of the class NoopSpan."""
    lines = []
    for method in table.methods:
        parameters = _parameters(method, annotations=False)
        lines += [f"def {method.name}({parameters}):", "    pass", ""]
    return "\n".join(lines[:-1]) + "\n"


def recorder_fields(table: Table) -> str:
    """What the encoder, `start_span` and `record_batch` know of the fields."""
    numbers = _numbers(table)
    if len(numbers) > MAX_PRESENCE_BITS:
        raise TableError(f"a span has room for {MAX_PRESENCE_BITS} numbers, got {len(numbers)}")
    lines = ["cdef enum:"]
    lines += [f"    HAS_{it.constant} = {1 << bit}" for bit, it in enumerate(numbers)]
    sizes = {"count": 5, "text": 3}  # a varint of 31 bits, a length of at most 21; else a float
    largest = sum(len(it.tag) + sizes.get(it.kind_name, 4) for it in table.settable())
    lines += ["", "cdef enum:"]
    lines += [f"    {it.name.upper()}_TAG = {it.tag_number:#06x}" for it in table.tagged_by_name]
    lines += [
        "",
        "cdef enum:",
        f"    MAX_COLUMNS = {len(numbers) + 2}  # with start_ns and duration_ns",
        f"    FIELDS_BYTES = {largest}  # of all fields, but for the letters of texts",
        "",
        "",
        *_encoder(table),
        *_columns(table),
        *_keywords(table),
        *_text_signature(table),
    ]
    return HEADER + "\n".join(lines) + "\n"


def _encoder(table: Table) -> list[str]:
    lines = [
        "cdef inline uint8_t* put_fields(uint8_t* p, Span span) except NULL:",
        '    """Write the fields of InferenceContext but for the model\'s name."""',
        "    cdef uint32_t present = span.present",
    ]
    for it in table.by_number("InferenceContext"):
        if not it.is_set_by_users:
            continue
        if it.kind_name == "text":
            lines.append(f"    if span.extras is not None and span.extras.{it.name}:")
            function, value = "put_text", f"span.extras.{it.name}"
        else:
            lines.append(f"    if present & HAS_{it.constant}:")
            function = "wire_uint" if it.kind_name == "count" else "put_measure"
            value = f"span.{it.name}"
        *first, last = it.tag
        lines += [f"        p[{place}] = 0x{byte:02X}" for place, byte in enumerate(first)]
        start = f"p + {len(first)}" if first else "p"
        lines.append(f"        p = {function}({start}, 0x{last:02X}, {value})")
    return [*lines, "    return p", "", ""]


def _columns(table: Table) -> list[str]:
    lines = [
        "cdef int bind(Span span, str name, Column* column) except -1:",
        '    """Let a column fill its field of `span`."""',
        "    column.real = True",
        "    column.upper = FLOAT32_MAX",
    ]
    condition = "if"
    for it in table.measures:
        lines += [
            f'    {condition} name == "{it.name}":',
            f"        column.field = &span.{it.name}",
            f"        column.presence = HAS_{it.constant}",
        ]
        if it.kind_name == "ratio":
            lines.append(f"        column.upper = {it.kind.upper}")
        condition = "elif"
    lines += ["    else:", "        column.real = False"]
    condition = "if"
    for it in table.settable("count"):
        lines += [
            f'        {condition} name == "{it.name}":',
            f"            column.field = &span.{it.name}",
            f"            column.presence = HAS_{it.constant}",
        ]
        condition = "elif"
    lines += [
        "        else:",
        "            column.field, column.presence = NULL, 0  # start_ns, duration_ns",
        "    return 0",
        "",
        "",
    ]
    return lines


FIRST_KEYWORDS = ("model_name", "operation_name", "parent", "links", "tags", "attributes")


def _keywords(table: Table) -> list[str]:
    names = [*FIRST_KEYWORDS, *(it.name for it in table.keywords)]
    lines = ["# The keywords of start_span, in the order of the enum below."]
    lines.append("cdef tuple START_KEYWORDS = (")
    lines += textwrap.wrap(
        ", ".join(f'"{name}"' for name in names) + ",",
        WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
    )
    lines += [")", "", "cdef enum StartKeyword:"]
    lines += [f"    KEYWORD_{name.upper()}" for name in names]
    lines += [
        "    START_KEYWORD_COUNT",
        "",
        "",
        "cdef int set_fields(",
        "    Span span, PyObject** given, const int* keywords, Py_ssize_t count",
        ") except -1:",
        '    """Set the fields that were given as keywords; None leaves a field as it is."""',
        "    cdef int keyword",
        "    cdef Py_ssize_t number",
        "    cdef PyObject* value",
        "    cdef bint rare = False",
        "    for number in range(count):",
        "        keyword = keywords[number]",
        "        value = given[keyword]",
        "        if keyword < KEYWORD_LINKS or value == <PyObject*>None:",
        "            continue",
    ]
    condition = "if"
    for it in [*_numbers(table), *table.settable("text")]:
        lines.append(f"        {condition} keyword == KEYWORD_{it.name.upper()}:")
        condition = "elif"
        if it.kind_name == "text":
            name, parameter = it.method
            is_single = next(m for m in table.methods if m.name == name).is_single
            argument = "<object>value" if is_single else f"{parameter}=<object>value"
            lines.append(f"            span.{name}({argument})")
        else:
            lines += [f"        {line}" for line in _put(it, "span", "<object>value")]
    lines += [
        "        else:",
        "            rare = True",
        "    if rare:",
        "        fill(",
        "            span,",
        "            object_or_none(given[<int>KEYWORD_TAGS]),",
        "            object_or_none(given[<int>KEYWORD_ATTRIBUTES]),",
        "            object_or_none(given[<int>KEYWORD_LINKS]),",
        "        )",
        "    return 0",
        "",
        "",
    ]
    return lines


def _text_signature(table: Table) -> list[str]:
    names = [*FIRST_KEYWORDS[2:], *(it.name for it in table.keywords)]
    keywords = ", ".join(f"{name}=None" for name in names)
    signature = f"$self, model_name=None, operation_name='inference', *, {keywords}"
    lines = ["# What inspect.signature() reads.", "cdef const char* START_SPAN_SIGNATURE = ("]
    lines += [f'    b"{line}"' for line in _pieces(f"start_span({signature})\\n--\\n\\n")]
    return [*lines, ")"]


def _pieces(text: str) -> list[str]:
    pieces = textwrap.wrap(text, WIDTH - 12, break_long_words=False, break_on_hyphens=False)
    return [f"{piece} " for piece in pieces[:-1]] + pieces[-1:]
