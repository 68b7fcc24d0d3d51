"""The fields of the compiled recorder."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from itertools import groupby

from generator.field_table import Field, Method, Table, TableError
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
    return _completed(
        span,
        table,
        {"text_members": text_members, "span_fields": span_fields, "noop_setters": noop_setters},
    )


def serving_with_fields(serving: str, table: Table) -> str:
    """The text of serving.pxi with the members that are apart in its region."""
    return _completed(serving, table, {"apart_members": apart_members})


def _completed(code: str, table: Table, made: dict[str, Callable[[Table], str]]) -> str:
    def region(match: re.Match[str]) -> str:
        written = textwrap.indent(made.pop(match[1])(table), "    ")
        return f"    # generated: {match[1]}\n{written}    # end of what is generated\n"

    completed = _REGION.sub(region, code)
    if made:
        raise ValueError(f"no region {', '.join(made)}")
    return completed


def _near(fields: list[Field]) -> list[Field]:
    return [it for it in fields if not it.apart]


def _apart(table: Table) -> list[Field]:
    return [it for it in table.by_number("InferenceContext") if it.apart]


def apart_members(table: Table) -> str:
    """Members of the class Serving; the histogram it has anyway.

    What each step changes comes last, beside the times of the tokens, which it changes too.
    """
    fields = _apart(table)
    kinds = {
        "cdef float ": ("measure", "ratio"),
        "cdef int64_t ": ("ordinal",),
        "cdef int32_t ": ("count",),
        "cdef str ": ("text",),
    }
    lines: list[str] = []
    for start, kind_names in kinds.items():
        names = ", ".join(it.name for it in fields if it.kind_name in kind_names)
        lines += _wrapped(start, names)
    texts = [it.name for it in fields if it.kind_name == "text"]
    return "\n".join(lines) + "\n\n" + _text_bytes("text_bytes", texts)


def _text_bytes(method: str, names: list[str]) -> str:
    """The method that says how many bytes the texts of a class take."""
    sizes = "".join(
        f"    if self.{name} is not None:\n        size += utf8_size(self.{name})\n"
        for name in names
    )
    return (
        f"cdef inline Py_ssize_t {method}(self) except -1:\n"
        f"    cdef Py_ssize_t size = 0\n{sizes}    return size\n"
    )


def text_members(table: Table) -> str:
    """Members of the class Extras."""
    names = [it.name for it in _near(table.settable("text"))]
    has_any = "".join(f"        or self.{name}\n" for name in names[1:])
    return (
        f"cdef str {', '.join(names)}\n\n"
        "cdef inline bint has_inference_text(self):\n    return bool(\n"
        f"        self.{names[0]}\n{has_any}    )\n\n" + _text_bytes("inference_text_bytes", names)
    )


def span_fields(table: Table) -> str:
    """Members and setters of the class Span."""
    counts = ", ".join(it.name for it in _near(table.settable("count")))
    measures = ", ".join(it.name for it in _near(table.measures))
    lines = [*_wrapped("cdef int32_t ", counts), *_wrapped("cdef float ", measures)]
    for method in table.methods:
        lines += ["", *_definition(method)]
        for it in method.fields:
            body = _setter_body(it)
            if not method.is_single:
                lines.append(f"    if {it.method[1]} is not None:")
                body = [f"    {line}" for line in body]
            lines += body
    return "\n".join(lines) + "\n"


def _definition(method: Method) -> list[str]:
    parameters = _parameters(method, annotations=False)
    line = f"def {method.name}({parameters}):"
    if len(line) <= WIDTH - 4:
        return [line]
    wrapped = textwrap.wrap(f"{parameters},", WIDTH - 8, break_long_words=False)
    return [f"def {method.name}(", *(f"    {part}" for part in wrapped), "):"]


def _wrapped(start: str, names: str) -> list[str]:
    return [f"{start}{line.rstrip(',')}" for line in textwrap.wrap(names, WIDTH - len(start) - 8)]


def _setter_body(it: Field) -> list[str]:
    parameter = it.method[1]
    if it.kind_name == "intervals":
        return [f'    self.put_intervals("{it.name}", {parameter}, HAS_{it.constant})']
    if it.kind_name == "text":
        if it.apart:
            stored = [
                f"        self.serving().{it.name} = text",
                f"        self.set_present(HAS_{it.constant}, bool(text))",
            ]
        else:
            stored = [f"        self.more().{it.name} = text"]
        return [
            f'    text = self.cleaned_text("{it.name}", {parameter})',
            "    if text is not None:",
            *stored,
        ]
    return _put(it, "self", parameter)


def _holder(it: Field, span: str) -> str:
    return f"{span}.serving()" if it.apart else span


def _put(it: Field, span: str, value: str) -> list[str]:
    arguments = [f'"{it.name}"', value, f"&{_holder(it, span)}.{it.name}"]
    if it.kind_name in ("measure", "ratio"):
        arguments.append(it.kind.upper)
    arguments.append(f"HAS_{it.constant}")
    methods = {"count": "put_count", "ordinal": "put_ordinal"}
    method = methods.get(it.kind_name, "put_measure")
    line = f"    {span}.{method}({', '.join(arguments)})"
    if len(line) <= WIDTH - 8:
        return [line]
    return [f"    {span}.{method}(", *(f"        {one}," for one in arguments), "    )"]


def noop_setters(table: Table) -> str:
    """Setters of the class NoopSpan."""
    lines = []
    for method in table.methods:
        lines += [*_definition(method), "    pass", ""]
    return "\n".join(lines[:-1]) + "\n"


def recorder_fields(table: Table) -> str:
    """What the encoder, `start_span` and `record_batch` know of the fields."""
    numbers = table.numbers
    constants = {it.name: it.constant for it in table.settable()}
    lines = ["cdef enum:"]
    lines += [f"    HAS_{constants[name]} = {bit}" for name, bit in _presence_bits(table).items()]
    lines += ["", "cdef enum:"]
    lines += [f"    {it.name.upper()}_TAG = {it.tag_number:#06x}" for it in table.tagged_by_name]
    lines += [
        "",
        "cdef enum:",
        f"    MAX_COLUMNS = {len(numbers) + 2}  # with start_ns and duration_ns",
        f"    FIELDS_BYTES = {_room(_near(table.settable()))}"
        "  # of all fields, but for the letters of texts",
        f"    APART_BYTES = {_room(_apart(table))}  # of those that are apart, in the same way",
        "",
        "",
        *_encoder(table),
        *_columns(table),
        *_objects(table),
        *_keywords(table),
        *_text_signature(table),
    ]
    return HEADER + "\n".join(lines) + "\n"


def _room(fields: list[Field]) -> int:
    # A varint of 31 bits, of 63, a length of at most 21; else a float.
    sizes = {"count": 5, "ordinal": 9, "text": 3, "intervals": 3}
    return sum(len(it.tag) + sizes.get(it.kind_name, 4) for it in fields)


def _presence_bits(table: Table) -> dict[str, int]:
    """A bit for each number, and for each other field that is apart."""
    others = [it for it in _apart(table) if it.kind_name in ("text", "intervals")]
    flagged = [*table.numbers, *others]
    if len(flagged) > MAX_PRESENCE_BITS:
        raise TableError(f"a span has room for {MAX_PRESENCE_BITS} numbers, got {len(flagged)}")
    return {it.name: 1 << bit for bit, it in enumerate(flagged)}


def _encoder(table: Table) -> list[str]:
    fields = [it for it in table.by_number("InferenceContext") if it.is_set_by_users]
    runs = [list(run) for _, run in groupby(fields, key=lambda it: it.apart)]
    lines = [
        "cdef inline uint8_t* put_numbers(uint8_t* p, Span span) noexcept:",
        '    """Write the fields of a span that has nothing else: most spans."""',
        "    cdef uint32_t present = span.present",
    ]
    for it in _near(fields):
        if it.kind_name != "text":
            lines.append(f"    if present & HAS_{it.constant}:")
            lines += _written(it, "span", "        ")
    lines += ["    return p", "", ""]
    body: list[str] = []
    for run in runs:
        if run[0].apart:
            name, flags = f"put_apart_from_{run[0].number}", f"APART_FROM_{run[0].number}"
            bits = sum(_presence_bits(table)[it.name] for it in run)
            lines += ["cdef enum:", f"    {flags} = {bits}", "", "", *_apart_encoder(name, run)]
            body.append(f"    if present & {flags}:")
            body.append(f"        p = {name}(p, extras.serving, present)")
        else:
            body += _near_encoder(run)
    return [
        *lines,
        "cdef uint8_t* put_all_fields(uint8_t* p, Span span) except NULL:",
        "    cdef Extras extras = span.extras",
        "    cdef uint32_t present = span.present",
        *body,
        "    return p",
        "",
        "",
        "cdef inline uint8_t* put_fields(uint8_t* p, Span span) except NULL:",
        '    """Write the fields of InferenceContext but for the model\'s name."""',
        "    if span.extras is None:",
        "        return put_numbers(p, span)",
        "    return put_all_fields(p, span)",
        "",
        "",
    ]


def _apart_encoder(name: str, fields: list[Field]) -> list[str]:
    lines = [f"cdef uint8_t* {name}(uint8_t* p, Serving serving, uint32_t present) except NULL:"]
    for it in fields:
        lines.append(f"    if present & HAS_{it.constant}:")
        lines += _written(it, "serving", "        ")
    return [*lines, "    return p", "", ""]


def _near_encoder(fields: list[Field]) -> list[str]:
    lines = []
    for it in fields:
        if it.kind_name == "text":
            lines.append(f"    if extras.{it.name}:")
            lines += _written(it, "extras", "        ")
        else:
            lines.append(f"    if present & HAS_{it.constant}:")
            lines += _written(it, "span", "        ")
    return lines


def _written(it: Field, holder: str, indent: str) -> list[str]:
    functions = {
        "text": "put_text",
        "count": "wire_uint",
        "ordinal": "wire_uint",
        "intervals": "infertrace_put_intervals",
    }
    value = f"{holder}.{it.name}"
    if it.kind_name == "intervals":
        value = f"&{holder}.times.intervals"
    *first, last = it.tag
    lines = [f"{indent}p[{place}] = 0x{byte:02X}" for place, byte in enumerate(first)]
    start = f"p + {len(first)}" if first else "p"
    function = functions.get(it.kind_name, "put_measure")
    return [*lines, f"{indent}p = {function}({start}, 0x{last:02X}, {value})"]


def _columns(table: Table) -> list[str]:
    lines = [
        "cdef int bind(Span span, str name, Column* column) except -1:",
        '    """Let a column fill its field of `span`."""',
        "    column.upper = FLOAT32_MAX",
    ]
    forms = {"count": "COLUMN_COUNTS", "ordinal": "COLUMN_ORDINALS"}
    condition = "if"
    for it in table.numbers:
        lines += [
            f'    {condition} name == "{it.name}":',
            f"        column.field = &{_holder(it, 'span')}.{it.name}",
            f"        column.presence = HAS_{it.constant}",
            f"        column.form = {forms.get(it.kind_name, 'COLUMN_MEASURES')}",
        ]
        if it.kind_name == "ratio":
            lines.append(f"        column.upper = {it.kind.upper}")
        condition = "elif"
    lines += [
        "    return 0",
        "",
        "",
    ]
    return lines


def _objects(table: Table) -> list[str]:
    lines = [
        "cdef int set_object(Span span, str name, object value) except -1:",
        '    """Set a text or a histogram; None takes out what another row has set."""',
    ]
    condition = "if"
    for it in table.settable("text", "intervals"):
        name, parameter = it.method
        is_single = next(m for m in table.methods if m.name == name).is_single
        argument = "value" if is_single else f"{parameter}=value"
        lines.append(f'    {condition} name == "{it.name}":')
        condition = "elif"
        if it.kind_name == "text":
            argument = argument.replace("value", '"" if value is None else value')
            lines.append(f"        span.{name}({argument})")
        else:
            lines.append(f"        span.{name}({argument})")
    return [*lines, "    return 0", "", ""]


FIRST_KEYWORDS = ("model_name", "operation_name", "parent", "links", "tags", "attributes")
# Behind the fields, which are looked for one after the other.
LAST_KEYWORDS = ("kind",)


def _keywords(table: Table) -> list[str]:
    names = [*FIRST_KEYWORDS, *(it.name for it in table.keywords), *LAST_KEYWORDS]
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
    for it in [*table.numbers, *table.settable("text", "intervals")]:
        lines.append(f"        {condition} keyword == KEYWORD_{it.name.upper()}:")
        condition = "elif"
        if it.kind_name in ("text", "intervals"):
            name, parameter = it.method
            is_single = next(m for m in table.methods if m.name == name).is_single
            argument = "<object>value" if is_single else f"{parameter}=<object>value"
            lines.append(f"            span.{name}({argument})")
        else:
            lines += [f"        {line}" for line in _put(it, "span", "<object>value")]
    lines += [
        "        elif keyword == KEYWORD_KIND:",
        "            span.put_kind(<object>value)",
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
    names = [*FIRST_KEYWORDS[2:], *(it.name for it in table.keywords), *LAST_KEYWORDS]
    keywords = ", ".join(f"{name}=None" for name in names)
    signature = f"$self, model_name=None, operation_name='inference', *, {keywords}"
    of_step = signature.replace("'inference', *, ", "'step', *, prefill=None, decode=None, ")
    of_step = of_step.replace("parent=None", "capacity=None, parent=None")
    lines = ["# What inspect.signature() reads."]
    for name, text in (("start_span", signature), ("start_step", of_step)):
        lines.append(f"cdef const char* {name.upper()}_SIGNATURE = (")
        lines += [f'    b"{line}"' for line in _pieces(f"{name}({text})\\n--\\n\\n")]
        lines.append(")")
    return lines


def _pieces(text: str) -> list[str]:
    pieces = textwrap.wrap(text, WIDTH - 12, break_long_words=False, break_on_hyphens=False)
    return [f"{piece} " for piece in pieces[:-1]] + pieces[-1:]
