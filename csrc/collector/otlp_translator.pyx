# cython: language_level=3, binding=False, embedsignature=True
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The compiled translator: spans of OTLP as spans of ours, without the GIL and without an object
for each.

Behaves as infertrace.collector.ingest.otlp.pure_translator does, and asks that for each span in
which something is unusual.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free

from infertrace.otlp.dialects import scope_framework
from infertrace.collector.ingest.otlp.pure_translator import translate_span
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.wire.protobuf import WireError

cdef extern from "collector/otlp_span.h":
    ctypedef struct byte_slice:
        const uint8_t* data
        size_t size
    ctypedef struct wire_reader:
        const uint8_t* at
        const uint8_t* end
    ctypedef struct otlp_translation:
        uint8_t* data
        size_t size
        size_t spans
        size_t max_spans
        byte_slice head
        byte_slice tail
        byte_slice framework
        unsigned int cut_count
    enum:
        OTLP_USUAL
        OTLP_UNUSUAL
        OTLP_MALFORMED
        OTLP_NO_MEMORY
        OTLP_TOO_MANY
    int translate_spans(
        otlp_translation* translation, wire_reader* reader, wire_reader* span
    ) noexcept nogil
    int find_message(
        wire_reader* reader, unsigned int number, wire_reader* message
    ) noexcept nogil
    int append_span(otlp_translation* translation, const uint8_t* data, size_t size) noexcept nogil

__all__ = ["NAME", "Translator", "find_messages"]

NAME = "native"


cdef byte_slice _slice(bytes given):
    cdef byte_slice result
    result.data = <const uint8_t*>PyBytes_AS_STRING(given)
    result.size = PyBytes_GET_SIZE(given)
    return result


def find_messages(
    bytes raw, Py_ssize_t start, Py_ssize_t end, unsigned int number, Py_ssize_t limit
):
    """find_messages(raw, start, end, number, limit) -> list[tuple[int, int]]"""
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(raw)
    cdef wire_reader reader, message
    cdef int found
    if not 0 <= start <= end <= PyBytes_GET_SIZE(raw):
        raise ValueError("expected a range within the request")
    reader.at = data + start
    reader.end = data + end
    places = []
    while True:
        with nogil:
            found = find_message(&reader, number, &message)
        if found == 0:
            return places
        if found < 0:
            raise WireError("cut short, or no protobuf")
        if len(places) >= limit:
            raise RequestError(f"more than {limit} resources, or scopes of one, in one request")
        places.append((message.at - data, message.end - data))


@cython.final
cdef class Translator:
    """Translator(max_spans): collects the translated spans of one request."""

    cdef otlp_translation* _translation

    def __cinit__(self, size_t max_spans):
        self._translation = <otlp_translation*>calloc(1, sizeof(otlp_translation))
        if self._translation == NULL:
            raise MemoryError
        self._translation.max_spans = max_spans

    def __dealloc__(self):
        if self._translation != NULL:
            free(self._translation.data)
            free(self._translation)

    def add(
        self,
        bytes raw,
        Py_ssize_t start,
        Py_ssize_t end,
        bytes head,
        bytes tail,
        str scope_name,
        unsigned int cut_count,
    ):
        """add(raw, start, end, head, tail, scope_name, cut_count) -> int: translate what is there.
        """
        cdef otlp_translation* t = self._translation
        cdef size_t before = t.spans
        cdef wire_reader reader, span
        cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(raw)
        cdef int found
        if not 0 <= start <= end <= PyBytes_GET_SIZE(raw):
            raise ValueError("expected a range within the request")
        framework = scope_framework(scope_name).encode()
        reader.at = data + start
        reader.end = data + end
        t.head, t.tail, t.framework = _slice(head), _slice(tail), _slice(framework)
        t.cut_count = cut_count
        while True:
            with nogil:
                found = translate_spans(t, &reader, &span)
            if found == OTLP_USUAL:
                return t.spans - before
            if found == OTLP_NO_MEMORY:
                raise MemoryError
            if found == OTLP_TOO_MANY:
                raise RequestError(f"more than {t.max_spans} spans in one request")
            if found == OTLP_MALFORMED:
                raise WireError("malformed beside the spans")
            given = PyBytes_FromStringAndSize(<const char*>span.at, span.end - span.at)
            translated = translate_span(given, head, tail, scope_name, cut_count)
            if append_span(
                t, <const uint8_t*>PyBytes_AS_STRING(translated), PyBytes_GET_SIZE(translated)
            ):
                raise MemoryError

    def take(self):
        """take() -> bytes: the spans, as the field `spans` of a SendSpanBatchRequest."""
        return PyBytes_FromStringAndSize(
            <const char*>self._translation.data, self._translation.size
        )
