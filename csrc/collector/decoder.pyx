# cython: language_level=3, binding=False, embedsignature=True
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The compiled decoder: wire bytes into Arrow columns, without the GIL and without an object
for each span.

Behaves as infertrace.collector.ingest.pure_decoder does; one test suite runs on both.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc

from infertrace.collector.ingest import wire_fields
from infertrace.collector.ingest.decoded_spans import DecodedSpans
from infertrace.collector.ingest.wire_fields import RequestError

include "decoded_rows.pxi"

cdef extern from "collector/decoder_span.h":
    enum:
        NO_MEMORY
        SCAN_CUT
        SCAN_NOT_PROTOBUF
        SCAN_SPANS
        SCAN_OTHERS
    int scan_request(
        const uint8_t* data, size_t size, size_t max_spans, size_t max_others,
        size_t* spans, size_t* others
    ) noexcept nogil
    size_t count_events_and_links(const uint8_t* data, size_t size) noexcept nogil
    span_decoder* decoder_new(size_t rows) noexcept nogil
    void decoder_free(span_decoder* decoder) noexcept nogil
    int decode_request(
        span_decoder* decoder, const uint8_t* data, size_t size, uint8_t* reasons,
        uint8_t* others, size_t* others_size
    ) noexcept nogil

__all__ = ["NAME", "decode"]

NAME = "native"


def decode(bytes raw, max_spans=None, max_nested=None):
    """decode(raw: bytes, max_spans: int | None = None, max_nested: int | None = None)
    -> DecodedSpans: decode the spans of a request; raises RequestError.
    """
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(raw)
    cdef size_t size = PyBytes_GET_SIZE(raw)
    cdef size_t span_limit = wire_fields.MAX_SPANS if max_spans is None else max_spans
    cdef size_t max_others = wire_fields.MAX_OTHER_FIELDS
    cdef size_t nested_limit = (
        wire_fields.MAX_EVENTS_AND_LINKS if max_nested is None else max_nested
    )
    cdef size_t span_count = 0, other_count = 0, nested = 0, others_size = 0
    cdef int found
    cdef bint failed = False
    cdef uint8_t* reasons = NULL
    cdef uint8_t* others = NULL
    cdef span_decoder* decoder = NULL
    with nogil:
        found = scan_request(data, size, span_limit, max_others, &span_count, &other_count)
        if found == 0 and size / 2 > nested_limit:
            nested = count_events_and_links(data, size)
    if found == SCAN_SPANS:
        raise RequestError(f"more than {span_limit} spans in one request")
    if found == SCAN_OTHERS:
        raise RequestError(f"more than {max_others} fields beside the spans")
    if found == SCAN_CUT:
        raise RequestError("the request is cut short or is not protobuf")
    if found:
        raise RequestError("the request is not protobuf")
    if nested > nested_limit:
        raise RequestError(f"more than {nested_limit} events and links in one request")
    try:
        with nogil:
            reasons = <uint8_t*>malloc(span_count + 1)
            others = <uint8_t*>malloc(size + 1)
            decoder = decoder_new(span_count)
            if reasons == NULL or others == NULL or decoder == NULL:
                failed = True
            elif decode_request(decoder, data, size, reasons, others, &others_size) == NO_MEMORY:
                failed = True
        if failed:
            raise MemoryError
        rows = decoded_rows(decoder)
        rejections = rejections_of(reasons, span_count)
        rest = PyBytes_FromStringAndSize(<const char*>others, others_size)
        return DecodedSpans(rows, span_count, rejections, rest)
    finally:
        free(reasons)
        free(others)
        if decoder != NULL:
            with nogil:
                decoder_free(decoder)
