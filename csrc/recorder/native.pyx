# cython: language_level=3, binding=False, embedsignature=True
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The compiled backend: reads the clock, makes ids, encodes and buffers without Python objects.

Behaves as infertrace.recording.pure does, and writes the same bytes; one test suite
runs on both. A critical section lies between two operations that can run Python
code: it holds the GIL and allocates no object that the GC tracks, so no thread, signal
handler or finalizer sees it half done.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDED_RO, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.exc cimport PyErr_Clear
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_REFCNT, Py_XDECREF
from cpython.unicode cimport PyUnicode_CheckExact
from libc.errno cimport EPIPE
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport (
    INT32_MAX, INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
)
from libc.string cimport memcpy, memset

import contextvars
import os
import time

from infertrace import limits
from infertrace.buffering.batch import Batch
from infertrace.buffering.ledger import DROP_REASONS
from infertrace.recording import columns as batch_columns
from infertrace.recording import failure, invalid_values, serving_defaults, values
from infertrace.recording import stream as streams
from infertrace.recording.activation import Activation
from infertrace.recording.initial import fill
from infertrace.trace_context import ExternalSpan, TraceContext, parse_traceparent

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1
    PyObject* NewBytes "PyBytes_FromStringAndSize"(const char* data, Py_ssize_t size)
    char* BytesData "PyBytes_AS_STRING"(PyObject* bytes)

cdef extern from "Python.h":
    ctypedef struct PyMethodDef:
        pass
    PyObject* PyTuple_GET_ITEM(object values, Py_ssize_t place)
    Py_ssize_t PyTuple_GET_SIZE(object values)
    bint PyTuple_CheckExact(object value)
    PyObject* PyType "(PyObject *)Py_TYPE"(object value)
    tuple PyList_AsTuple(object values)
    PyObject* PyDict_GetItem(object values, object key)

cdef extern from "Python.h":
    ctypedef struct PyInterpreterState:
        pass
    PyInterpreterState* PyInterpreterState_Get()
    PyInterpreterState* PyInterpreterState_Main()

cdef extern from "recorder/start_span_method.h":
    ctypedef PyObject* (*infertrace_fast_method)(
        PyObject* self, PyObject** arguments, Py_ssize_t positional, PyObject* names
    ) noexcept
    int infertrace_add_method(
        object type, const char* name, infertrace_fast_method function,
        const char* documentation, PyMethodDef* definition
    ) except -1

cdef extern from "recorder/block_method.h":
    ctypedef PyObject* (*vectorcallfunc)(
        PyObject* self, PyObject** arguments, size_t count, PyObject* names
    ) noexcept
    Py_ssize_t PyVectorcall_NARGS(size_t count) noexcept
    int infertrace_make_block(object type, Py_ssize_t offset) except -1

cdef extern from "recorder/span_type.h":
    void infertrace_unlink_before_release(object type, Py_ssize_t offset) noexcept
    void infertrace_refuse_new(object type) noexcept

cdef extern from "recorder/recycled_bytes.h":
    void infertrace_cut_bytes(PyObject* bytes, Py_ssize_t size) noexcept

cdef extern from "common/text.h":
    const char* infertrace_utf8(object text, Py_ssize_t* size) except NULL
    bint infertrace_is_plain_text(object value, Py_ssize_t limit) noexcept

cdef extern from "recorder/small_int.h":
    bint infertrace_as_count(object value, int32_t* count) noexcept

cdef extern from "recorder/token_intervals.h":
    ctypedef struct infertrace_intervals:
        int32_t first, last, room
    void infertrace_find_ends(infertrace_intervals* all) noexcept
    void infertrace_narrow(infertrace_intervals* all) noexcept
    int infertrace_count_in(
        infertrace_intervals* all, int32_t bucket, uint32_t times
    ) noexcept
    void infertrace_forget_intervals(infertrace_intervals* all) noexcept
    size_t infertrace_intervals_room(const infertrace_intervals* all) noexcept
    uint8_t* infertrace_put_intervals(
        uint8_t* p, uint8_t tag, const infertrace_intervals* all
    ) noexcept

cdef extern from "recorder/token_clock.h":
    int64_t infertrace_token_ns() noexcept
    void infertrace_trust_ticks() noexcept

cdef extern from "recorder/token_times.h":
    ctypedef struct infertrace_token_times:
        int64_t first_token, last_token, longest_interval, tokens, prefilled
        infertrace_intervals intervals
    ctypedef struct infertrace_known_bucket:
        int64_t interval_ns
    int infertrace_add_tokens(
        infertrace_token_times* times,
        int64_t now,
        int64_t count,
        bint counts_interval,
        infertrace_known_bucket* known,
    ) noexcept

cdef extern from "recorder/field_cache.h":
    ctypedef struct infertrace_cached_field:
        pass
    ctypedef infertrace_cached_field infertrace_field_cache[8]
    uint8_t* infertrace_put_repeated(
        infertrace_cached_field* cache, uint8_t* p, uint8_t tag, object text
    ) except NULL
    void infertrace_clear_fields(infertrace_cached_field* cache) noexcept

cdef extern from "common/clock.h":
    int64_t infertrace_monotonic_ns() nogil
    int64_t infertrace_wall_ns() nogil

cdef extern from "recorder/roundtrip.h":
    struct iovec:
        void* iov_base
        size_t iov_len
    ptrdiff_t infertrace_roundtrip(
        int fd, iovec* parts, int count, char* answer,
        size_t room, size_t head, size_t size_at, int64_t deadline
    ) nogil

cdef extern from "common/atomics.h":
    uint32_t infertrace_load_acquire(const uint32_t* word) noexcept
    void infertrace_store_release(uint32_t* word, uint32_t value) noexcept
    bint infertrace_compare_exchange(
        uint32_t* word, uint32_t expected, uint32_t desired
    ) noexcept

cdef extern from "recorder/wakeup_pipe.h":
    ctypedef struct infertrace_wakeup_pipe:
        pass
    int infertrace_wakeup_open(infertrace_wakeup_pipe* wakeup) noexcept
    void infertrace_wakeup_close(infertrace_wakeup_pipe* wakeup) noexcept
    void infertrace_wakeup_notify(infertrace_wakeup_pipe* wakeup) noexcept

cdef extern from "recorder/delivery_loop.h":
    enum:
        INFERTRACE_ABSENT
        INFERTRACE_IDLE
        INFERTRACE_WANTED
        INFERTRACE_FILLED
        INFERTRACE_ANSWERED
        INFERTRACE_FAILED
        INFERTRACE_TRAILER_ROOM
    struct infertrace_request:
        uint64_t size
        double timeout_s
        int64_t span_count
    ctypedef struct infertrace_delivery:
        infertrace_wakeup_pipe wakeup
        uint32_t state, interrupted
        uint32_t* pending_work
        infertrace_request request
        const char* payload
        const char* resource
        size_t payload_size, resource_size
        uint8_t* trailer
        size_t trailer_size
        ptrdiff_t answer_size
        char* answer
    ctypedef struct infertrace_link:
        int fd
        size_t head, size_at
        int64_t timeout_ns
    int infertrace_run_delivery_loop(
        infertrace_delivery* delivery, const infertrace_link* link,
        int64_t interval_ns, int64_t until
    ) noexcept nogil

cdef extern from "recorder/gpu_sample.h":
    ctypedef struct infertrace_gpu_queries:
        void* device
        void* rates
        void* memory
        void* power
        void* temperature
    ctypedef struct infertrace_gpu_sample:
        infertrace_wakeup_pipe wakeup
        uint32_t state, stopped
        int64_t taken_at
        uint8_t* identity
        size_t identity_size
    enum:
        INFERTRACE_GPU_IDENTITY_ROOM
    void infertrace_sample_gpu(
        infertrace_gpu_sample* sample, const infertrace_gpu_queries* queries,
        int64_t interval_ns, int64_t until
    ) noexcept nogil

cdef extern from "recorder/gpu_page.h":
    ctypedef struct infertrace_gpu_page:
        int descriptor
        int64_t place
        uint32_t generation
        int64_t max_age_ns

cdef extern from "recorder/process_sample.h":
    enum:
        INFERTRACE_NO_SAMPLE
        INFERTRACE_NEW_SAMPLE
        INFERTRACE_BUSY_SAMPLE
    ctypedef struct infertrace_process_sample:
        infertrace_wakeup_pipe wakeup
        uint32_t state, stopped
        uint32_t* pending_work
        const char* metrics
        size_t size
        int64_t taken_at
        infertrace_gpu_sample gpu
    void infertrace_sample_process(
        infertrace_process_sample* sample, int64_t interval_ns, int64_t until,
        const infertrace_gpu_page* page
    ) noexcept nogil

cdef extern from "recorder/spool.h":
    ctypedef struct infertrace_spool_header:
        uint32_t seed
        uint64_t batch_sequence
        uint64_t* dropped
    ctypedef struct infertrace_spool:
        infertrace_spool_header* header
        uint8_t* ring
        uint64_t capacity, head, tail
        uint32_t seed
    void infertrace_make_crc_tables()
    int infertrace_spool_map(
        infertrace_spool* spool, int descriptor, size_t header_bytes, size_t size
    ) noexcept
    void infertrace_spool_unmap(infertrace_spool* spool) noexcept
    bint infertrace_spool_append(
        infertrace_spool* spool, const uint8_t* span, size_t size, uint64_t sequence
    ) noexcept
    void infertrace_spool_settle(infertrace_spool* spool, uint64_t sequence) noexcept
    void infertrace_spool_settle_to(
        infertrace_spool* spool, uint64_t sequence, uint64_t end
    ) noexcept

cdef extern from "recorder/shared_memory.h":
    ctypedef struct infertrace_slot:
        uint64_t first_sequence, place
        int64_t used, span_count
    ctypedef struct infertrace_account:
        uint64_t delivered, settled
        uint64_t* dropped
    ctypedef struct infertrace_shared_header:
        uint64_t slot_bytes, batch_sequence, next_sequence
    ctypedef struct infertrace_memory:
        infertrace_shared_header* header
        int descriptor
    infertrace_account* infertrace_account_of(infertrace_shared_header* header) noexcept
    void infertrace_keep_order() noexcept
    void infertrace_settle_account(
        infertrace_shared_header* header,
        uint64_t first, uint64_t span_count, uint64_t delivered, int reason,
    ) noexcept
    void infertrace_share_nothing(infertrace_memory* memory) noexcept
    int infertrace_share(
        infertrace_memory* memory, size_t slot_bytes, size_t slot_count
    ) noexcept
    void infertrace_unshare(infertrace_memory* memory) noexcept
    infertrace_slot* infertrace_take_slots(infertrace_memory* memory, size_t count) noexcept
    void infertrace_free_slots(
        infertrace_memory* memory, infertrace_slot* first, size_t count
    ) noexcept
    void infertrace_set_resource(
        infertrace_memory* memory, const uint8_t* producer_id, const void* resource, size_t size
    ) noexcept

cdef extern from "recorder/identifiers.h":
    ctypedef struct infertrace_id_streams:
        uint64_t trace_high
        uint64_t trace_low
        uint64_t span
    uint64_t infertrace_next_id(uint64_t* stream) nogil

cdef extern from "common/wire_write.h":
    uint8_t* wire_varint(uint8_t* p, uint64_t value) nogil
    uint8_t* wire_time(uint8_t* p, uint64_t nanos) nogil
    int wire_varint_size(uint64_t value) nogil
    uint8_t* wire_uint(uint8_t* p, uint8_t tag, uint64_t value) nogil
    uint8_t* wire_bytes(uint8_t* p, uint8_t tag, const void* data, size_t size) nogil
    uint8_t* wire_id(uint8_t* p, uint64_t id) nogil
    uint8_t* wire_float(uint8_t* p, float value) nogil
    uint8_t* wire_double(uint8_t* p, double value) nogil
    size_t wire_entry_size(const uint8_t* p) nogil
    uint8_t* wire_close(uint8_t* start, int reserved, uint8_t* end) nogil

# A subinterpreter that ends while the exporter's thread runs would end the process.
if PyInterpreterState_Get() != PyInterpreterState_Main():
    raise ImportError(
        "infertrace does not support subinterpreters: import it in the main interpreter"
    )

__all__ = [
    "NAME", "NOOP", "Recorder", "Span", "TracerBase",
    "current", "exchange_current", "monotonic_ns", "restore_current", "roundtrip", "set_current",
]

NAME = "native"
infertrace_make_crc_tables()

cdef Py_ssize_t MAX_TEXT_BYTES = limits.MAX_TEXT_BYTES
cdef Py_ssize_t MAX_ENTRIES = limits.MAX_ENTRIES
cdef Py_ssize_t MAX_SPAN_BYTES = limits.MAX_SPAN_BYTES
cdef double FLOAT32_MAX = limits.FLOAT32_MAX
cdef int64_t MIN_START_UNIX_NS = limits.MIN_START_UNIX_NS

include "buffer.pxi"
include "context.pxi"
include "serving.pxi"
include "span.pxi"
include "encoder.pxi"
include "record.pxi"
include "../generated/recorder_fields.pxi"
include "recorder.pxi"
include "steps.pxi"
include "stream.pxi"
include "roundtrip.pxi"
include "delivery_loop.pxi"
