"""The fields in Python: setters, keywords, tables of the encoder and of the stores."""

from __future__ import annotations

from generator.field_table import Field, Method, Table

HEADER = '''"""{purpose}

Generated from proto/fields.toml by tools/generate.py, which is where to change it.
"""

from __future__ import annotations

'''
UPPER_VALUES = {
    "INT32_MAX": "2**31 - 1",
    "INT64_MAX": "2**63 - 1",
    "FLOAT32_MAX": "3.4028234663852886e38",
}


def field_names(table: Table) -> str:
    """The tables that both backends load at `import infertrace`, so without any import."""
    uppers = "".join(f'    "{it.name}": {_upper(it)},\n' for it in table.measures)
    return (
        HEADER.format(purpose="The fields that a span's user sets, by kind.")
        + "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from typing import Final\n\n"
        + _names("TEXT_FIELDS", table.settable("text"))
        + _names("COUNT_FIELDS", table.settable("count"))
        + _names("ORDINAL_FIELDS", table.settable("ordinal"))
        + _names("INTERVALS_FIELDS", table.settable("intervals"))
        + f"MEASURE_FIELDS: Final = {{\n{uppers}}}\n"
        + '"""Each with its largest value."""\n'
    )


def _names(constant: str, fields: list[Field]) -> str:
    names = "".join(f'    "{it.name}",\n' for it in fields)
    return f"{constant}: Final = (\n{names})\n"


def _upper(it: Field) -> str:
    return UPPER_VALUES.get(it.kind.upper, it.kind.upper) if it.kind_name == "measure" else "1.0"


def _parameters(method: Method, annotations: bool = True) -> str:
    def parameter(it: Field) -> str:
        name, kind = it.method[1], it.kind.python
        if method.is_single:
            return f"{name}: {kind}" if annotations else name
        return f"{name}: {kind} | None = None" if annotations else f"{name}=None"

    return ", ".join(["self", *map(parameter, method.fields)])


def _escaped(text: str) -> str:
    """As it stands in a literal of three quotation marks."""
    return text.replace("\\", r"\\").replace('"', r"\"")


def span_setters(table: Table) -> str:
    """The Protocol of the setters, and the keywords with their types."""
    lines = [
        HEADER.format(purpose="The setters of a span and the keywords of a tracer, with types.")
        + "from collections.abc import Sequence\n"
        + "from typing import Any, Final, Protocol, TypedDict\n\n",
        "class FieldSetters(Protocol):",
        '    """One setter for each field, or for some that belong together."""',
    ]
    for method in table.methods:
        lines += [
            "",
            f"    def {method.name}({_parameters(method)}) -> None:",
            f'        """{_escaped(method.documentation)}"""',
        ]
    lines += ["", "", "class SpanFields(TypedDict, total=False):"]
    lines += ['    """Fields as keywords; None leaves one out."""', ""]
    lines += [f"    {it.name}: {it.kind.python} | None" for it in table.keywords]
    lines += ["", "", "class SpanColumns(TypedDict, total=False):"]
    lines += ['    """Columns as keywords: buffers of numbers, sequences of the rest."""', ""]
    for it in table.keywords:
        kind = f"Sequence[{it.kind.python} | None] | None"
        lines.append(f"    {it.name}: {'Any' if it in table.numbers else kind}")
    lines += ["", "", "SETTERS: Final = {"]
    lines += [f'    "{it.name}": {it.method!r},' for it in table.keywords]
    lines += ["}", '"""By field, the method of a span that sets it, and its parameter."""']
    return "\n".join(lines) + "\n"


def pure_fields(table: Table) -> str:
    """The setters of the pure backend, and the tables of its encoder.

    Every tracer's start loads them, so without any import.
    """
    lines = [
        HEADER.format(purpose="The fields of the pure backend's spans: setters and tables.")
        + "TYPE_CHECKING = False\nif TYPE_CHECKING:\n"
        + "    from collections.abc import Callable, Mapping, Sequence\n"
        + "    from typing import Any, Final, TypeAlias\n\n"
        + "    Setter: TypeAlias = Callable[[Any, Any], None]\n\n",
        "class FieldSetters:",
        '    """What a span of the pure backend is derived from."""',
        "",
        "    __slots__ = ()",
        "    _ended: int",
        "    _fields: dict[str, Any]",
        "    if TYPE_CHECKING:",
        "        def _set_text(self, field: str, value: object) -> None: ...",
        "        def _set_count(self, field: str, value: object) -> None: ...",
        "        def _set_measure(self, field: str, value: object, upper: float) -> None: ...",
        "        def _set_ordinal(self, field: str, value: object) -> None: ...",
        "        def _set_intervals(self, field: str, value: object) -> None: ...",
    ]
    for method in table.methods:
        lines += ["", f"    def {method.name}({_parameters(method)}) -> None:"]
        for it in method.fields:
            body = _pure_body(it)
            if not method.is_single:
                lines.append(f"        if {it.method[1]} is not None:")
                body = [f"    {line}" for line in body]
            lines += body
    lines += ["", "", "class NoopFieldSetters:"]
    lines += ['    """What a span that records nothing is derived from."""', ""]
    lines += ["    __slots__ = ()"]
    for method in table.methods:
        lines.append(f"    def {method.name}({_parameters(method)}) -> None: ...")
    lines += ["", "", "FIELD_SETTERS: Final[Mapping[str, Setter]] = {"]
    for it in table.keywords:
        name, parameter = it.method
        is_first = next(one for one in table.methods if one.name == name).fields[0] is it
        setter = f"lambda span, value: span.{name}({parameter}=value)"
        lines.append(f'    "{it.name}": {f"FieldSetters.{name}" if is_first else setter},')
    lines += ["}", ""]
    lines += [f"{it.name.upper()}_TAG: Final = {it.tag!r}" for it in table.tagged_by_name]
    lines += ["", "INFERENCE_FIELDS: Final = ("]
    for it in table.by_number("InferenceContext"):
        if it.is_set_by_users:
            kind = "bytes" if it.kind_name == "intervals" else it.kind.python
            lines.append(f'    ("{it.name}", {it.tag!r}, {kind}),')
    lines += [
        ")",
        '"""Name, tag and type (bytes: a message), in the order of the numbers."""',
        "",
    ]
    lines += ["RESOURCE_FIELDS: Final = ("]
    for it in table.by_number("ResourceMetrics"):
        if it.name != "sample_age_ms":  # comes with the span
            lines.append(f'    ("{it.name}", {it.tag!r}, {it.kind.python}),')
    lines += [")"]
    return "\n".join(lines) + "\n"


def _pure_body(it: Field) -> list[str]:
    parameter = it.method[1]
    if it.kind_name in ("text", "ordinal", "intervals"):
        return [f'        self._set_{it.kind_name}("{it.name}", {parameter})']
    if it.kind_name == "count":
        kind, lowest, upper, rest = "int", "0", UPPER_VALUES["INT32_MAX"], "_set_count"
        arguments = f'"{it.name}", {parameter}'
    else:
        kind, lowest, upper, rest = "float", "0.0", _upper(it), "_set_measure"
        arguments = f'"{it.name}", {parameter}, {upper}'
    # Inlined for the usual case: a call would double the cost.
    return [
        f"        if type({parameter}) is {kind} and {lowest} <= {parameter} <= {upper} "
        "and not self._ended:",
        f'            self._fields["{it.name}"] = {parameter}',
        "        else:",
        f"            self.{rest}({arguments})",
    ]


def stored_columns(table: Table) -> str:
    """The columns of the table of spans."""
    lines = [
        HEADER.format(purpose="The fields of a span that are columns in a store.")
        + "from typing import Final\n",
        "STORED_FIELDS: Final = (",
    ]
    for path, it in table.columns:
        shown = it.shown or it.allowed
        row = (it.column_name, it.kind.column, path, shown, it.answer, it.required)
        lines.append(f"    {row!r},")
    lines += [
        ")",
        '"""Name, kind, path in the message Span, what an answer shows, the key in an answer where',
        'it is another one, and whether each span has it."""',
    ]
    return "\n".join(lines) + "\n"
