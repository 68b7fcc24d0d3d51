# cython: language_level=3, binding=False, embedsignature=True
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The compiled translator of OTLP in JSON: spans without the GIL, and without an object for each.

Writes what infertrace.collector.ingest.pure_otlp_json does, and asks that for each resource, for
each span in which something is unusual, and for each request that is not what it has to be.
"""

import json

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memset

from infertrace.collector.ingest import pure_otlp_json as pure

cdef extern from "Python.h":
    ctypedef struct PyObject
    double PyOS_string_to_double(const char* text, char** end, PyObject* overflow) except? -1

cdef extern from "collector/otlp_json.h":
    ctypedef struct byte_slice:
        const uint8_t* data
        size_t size
    ctypedef struct wire_reader:
        const uint8_t* at
        const uint8_t* end
    ctypedef struct text_buffer:
        uint8_t* data
        size_t size
    ctypedef struct json_text:
        byte_slice inside
        int has_escapes
    ctypedef double (*json_double_reader)(const char* digits) noexcept nogil
    enum:
        JSON_UNUSUAL
        JSON_END
        JSON_NO_MEMORY
        JSON_MAX_DEPTH
    int is_utf8(const uint8_t* data, const uint8_t* end) noexcept nogil
    int take_byte(wire_reader* reader, uint8_t wanted) noexcept nogil
    void skip_space(wire_reader* reader) noexcept nogil
    int skip_text(wire_reader* reader, json_text* text) noexcept nogil
    int skip_json(wire_reader* reader, int depth) noexcept nogil
    int text_put(text_buffer* text, const void* data, size_t size) noexcept nogil
    int put_json_spans(
        text_buffer* out,
        wire_reader* reader,
        size_t* count,
        wire_reader* span,
        json_double_reader read_double,
    ) noexcept nogil

__all__ = ["NAME", "export_request"]

NAME = "native"


class UnusualError(Exception):
    """The request is one for the pure translator."""


cdef double _read_double(const char* digits) noexcept with gil:
    try:
        return PyOS_string_to_double(digits, NULL, NULL)  # infinite where it is too large
    except Exception:  # out of memory: these digits are those of a number
        return 0.0


def export_request(bytes text not None):
    """export_request(text) -> bytes: as infertrace.collector.ingest.pure_otlp_json has it."""
    pure.check_size(text)
    try:
        return _translated(text)
    except UnusualError:
        return pure.export_request(text)


cdef bytes _translated(bytes text):
    cdef wire_reader reader
    cdef json_text name
    cdef size_t members = 0, count
    cdef bint is_text
    reader.at = <const uint8_t*>PyBytes_AS_STRING(text)
    reader.end = reader.at + PyBytes_GET_SIZE(text)
    with nogil:
        is_text = is_utf8(reader.at, reader.end)
    if not is_text:
        raise UnusualError
    if text.startswith(b"\xef\xbb\xbf"):
        reader.at += 3
    out = bytearray()
    seen = set()
    enter(&reader, b"{")
    while next_member(&reader, &members, &name, seen):
        if is_name(&name, b"resourceSpans") and not is_null(&reader):
            count = 0
            enter(&reader, b"[")
            while next_element(&reader, &count):
                out += pure.delimited(b"\x0a", resource_spans(&reader))
        else:
            value(&reader)
    skip_space(&reader)
    if reader.at != reader.end:
        raise UnusualError
    return bytes(out)


cdef object resource_spans(wire_reader* reader):
    cdef json_text name
    cdef size_t members = 0, count
    fields = {}
    scopes = bytearray()
    seen = set()
    enter(reader, b"{")
    while next_member(reader, &members, &name, seen):
        if is_name(&name, b"scopeSpans") and not is_null(reader):
            count = 0
            enter(reader, b"[")
            while next_element(reader, &count):
                scopes += pure.delimited(b"\x12", scope_spans(reader))
        else:
            fields[text_of(&name)] = value(reader)
    return (
        field(fields.get("resource"), pure.resource_field)
        + scopes
        + field(fields.get("schemaUrl"), pure.schema_url_field)
    )


cdef object scope_spans(wire_reader* reader):
    cdef json_text name
    cdef size_t members = 0
    fields = {}
    spans = b""
    seen = set()
    enter(reader, b"{")
    while next_member(reader, &members, &name, seen):
        if is_name(&name, b"spans") and not is_null(reader):
            enter(reader, b"[")
            spans = all_spans(reader)
        else:
            fields[text_of(&name)] = value(reader)
    return (
        field(fields.get("scope"), pure.scope_field)
        + spans
        + field(fields.get("schemaUrl"), pure.schema_url_field)
    )


cdef bytes all_spans(wire_reader* reader):
    cdef text_buffer out
    cdef wire_reader span
    cdef size_t count = 0
    cdef int found
    memset(&out, 0, sizeof(out))
    try:
        while True:
            with nogil:
                found = put_json_spans(&out, reader, &count, &span, _read_double)
            if found == JSON_END:
                return PyBytes_FromStringAndSize(<const char*>out.data, out.size)
            if found == JSON_NO_MEMORY:
                raise MemoryError
            if found != JSON_UNUSUAL:
                raise UnusualError
            given = parsed(PyBytes_FromStringAndSize(<const char*>span.at, span.end - span.at))
            encoded = bytes(pure.span_field(given))
            if text_put(&out, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded)) < 0:
                raise MemoryError
    finally:
        free(out.data)


cdef object parsed(bytes text):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UnusualError from None


cdef object field(object given, object encode):
    """What the pure translator makes of a value; nothing of one that is absent."""
    if given is None:
        return b""
    try:
        return encode(given)
    except Exception:
        raise UnusualError from None


cdef int enter(wire_reader* reader, bytes opening) except -1:
    if not take_byte(reader, opening[0]):
        raise UnusualError
    return 0


cdef bint next_member(wire_reader* reader, size_t* count, json_text* name, set seen) except -1:
    """Whether an object has one more member, whose value follows; its name is a new one."""
    if take_byte(reader, b"}"):
        return False
    if count[0] and not take_byte(reader, b","):
        raise UnusualError
    count[0] += 1
    if skip_text(reader, name) < 0 or name.has_escapes or not take_byte(reader, b":"):
        raise UnusualError
    found = text_of(name)
    if found in seen:
        raise UnusualError
    seen.add(found)
    return True


cdef bint next_element(wire_reader* reader, size_t* count) except -1:
    if take_byte(reader, b"]"):
        return False
    if count[0] and not take_byte(reader, b","):
        raise UnusualError
    count[0] += 1
    return True


cdef str text_of(json_text* name):
    return PyBytes_FromStringAndSize(<const char*>name.inside.data, name.inside.size).decode()


cdef bint is_name(json_text* name, bytes wanted) noexcept:
    cdef size_t size = PyBytes_GET_SIZE(wanted)
    return size == name.inside.size and not memcmp(
        name.inside.data, PyBytes_AS_STRING(wanted), size
    )


cdef bint is_null(wire_reader* reader) noexcept:
    skip_space(reader)
    return reader.at != reader.end and reader.at[0] == b"n"


cdef object value(wire_reader* reader):
    """The next value, parsed."""
    cdef const uint8_t* start
    skip_space(reader)
    start = reader.at
    if skip_json(reader, JSON_MAX_DEPTH) < 0:
        raise UnusualError
    return parsed(PyBytes_FromStringAndSize(<const char*>start, reader.at - start))
