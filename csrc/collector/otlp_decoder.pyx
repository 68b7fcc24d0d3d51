# cython: language_level=3, binding=False, embedsignature=True
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The compiled decoder of OTLP: its bytes into Arrow columns, without the GIL and without an object
for each span.

Behaves as infertrace.collector.ingest.otlp.pure_export_decoder does, and asks the translator in
Python for each span in which something is unusual.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from infertrace.collector.ingest.decoded_spans import DecodedSpans
from infertrace.otlp.dialects import scope_framework
from infertrace.collector.ingest.otlp.pure_translator import translate_span
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.wire.protobuf import WireError

include "decoded_rows.pxi"

cdef extern from "collector/otlp_columns.h":
    ctypedef struct byte_slice:
        const uint8_t* data
        size_t size
    ctypedef struct wire_reader:
        const uint8_t* at
        const uint8_t* end
    ctypedef struct otlp_translation:
        size_t spans
        size_t max_spans
        byte_slice head
        byte_slice tail
        byte_slice framework
        unsigned int cut_count
    ctypedef struct otlp_decoding:
        otlp_translation translation
        span_decoder* decoder
        uint8_t* reasons
        size_t max_nested
    enum:
        OTLP_USUAL
        OTLP_UNUSUAL
        OTLP_MALFORMED
        OTLP_NO_MEMORY
        OTLP_TOO_MANY
        OTLP_TOO_MANY_NESTED
    size_t count_export_spans(const uint8_t* data, size_t size) noexcept nogil
    otlp_decoding* otlp_decoding_new(
        size_t spans, size_t max_spans, size_t max_nested
    ) noexcept nogil
    void otlp_decoding_free(otlp_decoding* decoding) noexcept nogil
    int decode_spans(otlp_decoding* decoding, wire_reader* reader, wire_reader* span) noexcept nogil
    int decode_translated(otlp_decoding* decoding, const uint8_t* data, size_t size) noexcept nogil

__all__ = ["NAME", "ExportDecoder"]

NAME = "native"


cdef byte_slice _slice(bytes given):
    cdef byte_slice result
    result.data = <const uint8_t*>PyBytes_AS_STRING(given)
    result.size = PyBytes_GET_SIZE(given)
    return result


@cython.final
cdef class ExportDecoder:
    """ExportDecoder(raw, max_spans, max_nested): collects the decoded spans of a request."""

    cdef otlp_decoding* _decoding
    cdef bytes _raw

    def __cinit__(self, bytes raw, size_t max_spans, size_t max_nested):
        cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(raw)
        cdef size_t size = PyBytes_GET_SIZE(raw)
        self._raw = raw
        with nogil:
            self._decoding = otlp_decoding_new(
                count_export_spans(data, size), max_spans, max_nested
            )
        if self._decoding == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._decoding != NULL:
            otlp_decoding_free(self._decoding)

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
        """add(raw, start, end, head, tail, scope_name, cut_count) -> int: decode what is there."""
        cdef otlp_translation* t
        cdef size_t before
        cdef wire_reader reader, span
        cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(raw)
        cdef int found
        if raw is not self._raw or not 0 <= start <= end <= PyBytes_GET_SIZE(raw):
            raise ValueError("expected a range within the request")
        if self._decoding == NULL:
            raise ValueError("the spans are taken already")
        t = &self._decoding.translation
        before = t.spans
        framework = scope_framework(scope_name).encode()
        reader.at = data + start
        reader.end = data + end
        t.head, t.tail, t.framework = _slice(head), _slice(tail), _slice(framework)
        t.cut_count = cut_count
        while True:
            with nogil:
                found = decode_spans(self._decoding, &reader, &span)
            if found == OTLP_UNUSUAL:
                given = PyBytes_FromStringAndSize(<const char*>span.at, span.end - span.at)
                translated = translate_span(given, head, tail, scope_name, cut_count)
                found = decode_translated(
                    self._decoding,
                    <const uint8_t*>PyBytes_AS_STRING(translated),
                    PyBytes_GET_SIZE(translated),
                )
                if found == OTLP_USUAL:
                    continue
            if found == OTLP_USUAL:
                return t.spans - before
            if found == OTLP_NO_MEMORY:
                raise MemoryError
            if found == OTLP_TOO_MANY:
                raise RequestError(f"more than {t.max_spans} spans in one request")
            if found == OTLP_TOO_MANY_NESTED:
                limit = self._decoding.max_nested
                raise RequestError(f"more than {limit} events and links in one request")
            raise WireError("malformed beside the spans")

    def take(self):
        """take() -> DecodedSpans: those that were added; to be called once, as the last."""
        cdef otlp_decoding* decoding = self._decoding
        if decoding == NULL:
            raise ValueError("the spans are taken already")
        self._decoding = NULL
        try:
            count = decoding.translation.spans
            rejections = rejections_of(decoding.reasons, count)
            return DecodedSpans(decoded_rows(decoding.decoder), count, rejections, b"")
        finally:
            otlp_decoding_free(decoding)
