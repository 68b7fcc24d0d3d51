"""What the decoders share: decoded columns as a record batch, and why spans were left out."""

from libc.stdint cimport uint8_t, uintptr_t

import pyarrow as pa

from infertrace.collector.store.span_rows import DECODED_SCHEMA

cdef extern from "collector/decoder_span.h":
    ctypedef struct ArrowArray:
        void (*release)(ArrowArray*) noexcept nogil
    ctypedef struct column_set:
        pass
    ctypedef struct span_decoder:
        column_set* columns
    enum:
        COLUMN_COUNT
    int columns_export(column_set* columns, ArrowArray* table) noexcept nogil

if len(DECODED_SCHEMA) != COLUMN_COUNT:
    raise ImportError(f"built for {COLUMN_COUNT} columns, and there are {len(DECODED_SCHEMA)}")


cdef object decoded_rows(span_decoder* decoder):
    """The rows that were decoded; the record batch takes over their memory."""
    cdef ArrowArray table
    cdef int found
    with nogil:
        found = columns_export(decoder.columns, &table)
    if found < 0:
        raise MemoryError
    try:
        return pa.RecordBatch._import_from_c(<uintptr_t>&table, DECODED_SCHEMA)
    except BaseException:
        if table.release != NULL:
            table.release(&table)
        raise


cdef dict rejections_of(const uint8_t* reasons, size_t count):
    """By position, why a span was left out."""
    cdef size_t position
    rejections = {}
    for position in range(count):
        if reasons[position]:
            rejections[position] = reasons[position]
    return rejections
