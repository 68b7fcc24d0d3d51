# cython: language_level=3, binding=False, embedsignature=True
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The compiled translator: an envelope of spans into OTLP's bytes, without the GIL and without an
object for each span.

Behaves as infertrace.otlp.pure_export_translator does; one test suite runs on both.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memset

from infertrace.otlp.rejection_reasons import REASONS
from infertrace.otlp.translated import Translated

cdef extern from "otlp/request_write.h":
    ctypedef struct byte_slice:
        const uint8_t* data
        size_t size
    ctypedef struct otlp_buffer:
        uint8_t* data
        size_t size
    ctypedef struct otlp_request:
        byte_slice sdk_name
        byte_slice sdk_version
        otlp_buffer out
        size_t span_count
        int first_reason
    enum:
        OTLP_NO_MEMORY
        OTLP_SOURCE_COUNT
    int otlp_translate(
        otlp_request* request, const uint8_t* data, size_t size, unsigned conventions
    ) noexcept nogil
    void otlp_free(otlp_request* request) noexcept nogil

__all__ = ["NAME", "translate"]

NAME = "native"

if len(REASONS) != OTLP_NO_MEMORY:
    raise ImportError(f"built for {OTLP_NO_MEMORY} reasons, and there are {len(REASONS)}")


def translate(bytes envelope, unsigned conventions, bytes sdk_name, bytes sdk_version):
    """Translate the spans of an envelope: -> Translated."""
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(envelope)
    cdef size_t size = PyBytes_GET_SIZE(envelope)
    cdef int failed
    cdef otlp_request request
    memset(&request, 0, sizeof(request))
    request.sdk_name.data = <const uint8_t*>PyBytes_AS_STRING(sdk_name)
    request.sdk_name.size = PyBytes_GET_SIZE(sdk_name)
    request.sdk_version.data = <const uint8_t*>PyBytes_AS_STRING(sdk_version)
    request.sdk_version.size = PyBytes_GET_SIZE(sdk_version)
    try:
        with nogil:
            failed = otlp_translate(&request, data, size, conventions)
        if failed:
            raise MemoryError
        made = PyBytes_FromStringAndSize(<const char*>request.out.data, request.out.size)
        return Translated(made, request.span_count, REASONS[request.first_reason])
    finally:
        with nogil:
            otlp_free(&request)
