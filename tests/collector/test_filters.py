"""Spans by the value under a key: a tag, an attribute, an attribute of the resource."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector_client import Client, NewSpan
from infertrace.collector.store.keyed_filter import KeyedText, are_in
from infertrace.collector.store.span_rows import attributes_json
from infertrace.generated.span_pb2 import AttributeValue, Resource, Span

HOSTILE = [
    "' OR '1'='1",
    "'; DROP TABLE spans; --",
    'a"b',
    "\\",
    'a\\"b',
    "%",
    "_",
    "?",
    "$.*",
    "/~1",
    "*",
    "\x00",
    "\x7f\b\n\r\t",
    "\uf8f0",
    "\uf8f00",
    "\u2028\u00e9\U0001f642",
    ".",
    "a.b c&d=e+f",
]


def asked(client: Client, **filters: Any) -> list[int]:
    """The numbers of the spans found, which they have as tags, newest first."""
    return [int(span["tags"]["n"]) for span in client.get("/spans", **filters)]


def numbered(new_span: NewSpan, **fields: Any) -> list[Span]:
    tags = fields.pop("tags", [{}] * 3)
    return [new_span(tags={"n": str(n), **more}, **fields) for n, more in enumerate(tags)]


def test_tags(client: Client, new_span: NewSpan) -> None:
    client.send(*numbered(new_span, tags=[{"user": "u1"}, {"user": "u2"}, {}, {"user": ""}]))
    assert asked(client, **{"tag.user": "u1"}) == [0]
    assert asked(client, **{"tag.user": ""}) == [3]
    assert asked(client, **{"tag.user": "u"}) == []
    assert asked(client, **{"tag.User": "u1"}) == []
    assert asked(client, **{"tag.user": ["u1", "u2"]}) == []
    assert asked(client, **{"tag.user": ["u2", "u2"], "tag.n": "1", "model": "gpt-4"}) == [1]
    assert asked(client, **{"attribute.user": "u1"}) == []


@pytest.mark.parametrize("kind", ["tag", "attribute", "resource"])
def test_any_key_and_any_text(client: Client, new_span: NewSpan, kind: str) -> None:
    for text in HOSTILE:
        span = new_span(tags={"n": "0"})
        fields = {}
        if kind == "tag":
            span.tags[text] = text
        elif kind == "attribute":
            span.attributes[text].string_value = text
        else:
            attributes = {text: AttributeValue(string_value=text)}
            fields["resource"] = Resource(attributes=attributes)
        client.send(span, **fields)
    for key in HOSTILE:
        for text in HOSTILE:
            found = client.get(f"/spans?{kind}.{quote(key, safe='')}={quote(text, safe='')}")
            assert len(found) == (key == text), (key, text)


def test_attributes_of_all_types(client: Client, new_span: NewSpan) -> None:
    values = [
        AttributeValue(string_value="1"),
        AttributeValue(int_value=1),
        AttributeValue(double_value=1.0),
        AttributeValue(bool_value=True),
        AttributeValue(string_value="true"),
        AttributeValue(double_value=0.7),
        AttributeValue(int_value=12),
        AttributeValue(double_value=1e300),
        AttributeValue(int_value=2**53 + 1),
        AttributeValue(double_value=float(2**53)),
        AttributeValue(int_value=-(2**63)),
        AttributeValue(double_value=float("nan")),
        AttributeValue(),
        AttributeValue(bool_value=False),
    ]
    for n, value in enumerate(values):
        client.send(new_span(tags={"n": str(n)}, attributes={"v": value}))
    expected = {
        "1": [2, 1, 0],
        "1.0": [2, 1],
        "true": [4, 3],
        "false": [13],
        "0.7": [5],
        "7e-1": [5],
        "0.70": [5],
        "1e300": [7],
        "1" + "0" * 17: [],
        "9007199254740993": [8],
        "9007199254740992": [9],
        "-9223372036854775808": [10],
        "NaN": [11],
        "": [],
        "null": [],
        "True": [],
        "0x1": [],
        "1e999": [],
    }
    for text, numbers in expected.items():
        assert asked(client, **{"attribute.v": text}) == numbers, text


def test_what_only_looks_alike(client: Client, new_span: NewSpan) -> None:
    """The text of these objects holds the piece that is searched for, and not the tag."""
    wrong = {"b": "b", ":": "d"}
    tags = [wrong, {",": ":"}, wrong, wrong, {",": ":"}, wrong]
    client.send(*numbered(new_span, tags=[{**t, "a": "b"} if n else t for n, t in enumerate(tags)]))
    assert '",":":"' in json.dumps(wrong, separators=(",", ":"))
    assert asked(client, **{"tag.,": ":"}) == [4, 1]
    assert asked(client, **{"tag.,": ":", "limit": 1}) == [4]


def test_resources(client: Client, new_span: NewSpan) -> None:
    for host in ("gpu-1", "gpu-2"):
        attributes = {
            "host.name": AttributeValue(string_value=host),
            "process.pid": AttributeValue(int_value=7),
        }
        spans = numbered(new_span, tags=[{"user": "u1"}, {}])
        client.send(*spans, resource=Resource(attributes=attributes))
    client.send(*numbered(new_span))
    assert asked(client, **{"resource.host.name": "gpu-2"}) == [1, 0]
    assert asked(client, **{"resource.process.pid": "7"}) == [1, 0, 1, 0]
    assert asked(client, **{"resource.host.name": "gpu-3"}) == []
    both = {"resource.host.name": "gpu-1", "resource.process.pid": "7", "tag.user": "u1"}
    (span,) = client.get("/spans", include="resource", **both)
    assert span["resource"]["host.name"] == "gpu-1"


def test_pages_keep_every_filter(client: Client, new_span: NewSpan) -> None:
    tags = [{"user": "u1", "team": "a"}, {"user": "u1"}] * 5
    client.send(*numbered(new_span, tags=tags))
    url: str | None = "/spans?tag.user=u1&tag.team=a&tag.user=u1&limit=2"
    found = []
    while url:
        answer = client.http.get(url)
        page = [int(span["tags"]["n"]) for span in answer.json()]
        assert 0 < len(page) <= 2
        found += page
        url = answer.links.get("next", {}).get("url")
    assert found == [8, 6, 4, 2, 0]


def test_errors(client: Client) -> None:
    status, error = client.error("/spans", **{"tag.": "x"})
    assert (status, error) == (400, "tag.: expected a key after the dot, such as tag.user")
    status, error = client.error("/spans", **{f"tag.k{n}": "x" for n in range(17)})
    assert status == 400
    assert error == "tag.KEY, attribute.KEY, resource.KEY: expected at most 16 of them"
    for name in ("tag", "tags.user", "Tag.user", "event.user"):
        status, error = client.error("/spans", **{name: "x"})
        assert status == 400
        assert error.startswith(f"{name}: unknown parameter; expected model, service, ")
        assert error.endswith(", tag.KEY, attribute.KEY, resource.KEY")
    assert client.error("/models", **{"tag.user": "x"})[0] == 400


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=3) | st.sampled_from(
    ["true", "1", "1.0", ",", ":", '"', "\\"]
)
VALUE = st.one_of(
    st.builds(AttributeValue, string_value=TEXT),
    st.builds(AttributeValue, bool_value=st.booleans()),
    st.builds(AttributeValue, int_value=st.integers(-(2**63), 2**63 - 1)),
    st.builds(AttributeValue, double_value=st.floats()),
)


@given(st.dictionaries(TEXT, VALUE, min_size=1, max_size=4))
def test_a_piece_of_what_is_there_is_there(attributes: dict[str, Any]) -> None:
    text = attributes_json(attributes)
    for key, value in json.loads(text).items():
        shown = value if isinstance(value, str) else json.dumps(value)
        condition = KeyedText(key, shown)
        assert are_in([condition], text)
        assert any(piece in text for piece in condition.pieces())
