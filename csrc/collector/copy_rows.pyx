# cython: language_level=3, binding=False, embedsignature=True
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""Arrow columns as the rows of PostgreSQL's binary COPY, without an object for each value.

Behaves as infertrace.collector.store.postgres.pure_copy_rows does. Source of the format:
PostgreSQL, "COPY", "Binary Format".
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

__all__ = ["encode_columns"]

cdef struct Column:
    const uint8_t* validity
    const uint8_t* values
    const uint8_t* text
    int size  # bytes of a value; 0: text
    bint is_id  # unsigned: shifted into the range of a signed number, in the same order


cdef inline bint _present(const Column* column, Py_ssize_t row) noexcept nogil:
    return column.validity == NULL or column.validity[row >> 3] >> (row & 7) & 1


cdef inline uint8_t* _put32(uint8_t* out, uint32_t value) noexcept nogil:
    out[0] = value >> 24
    out[1] = <uint8_t>(value >> 16)
    out[2] = <uint8_t>(value >> 8)
    out[3] = <uint8_t>value
    return out + 4


cdef size_t _size(const Column* columns, int count, Py_ssize_t rows) noexcept nogil:
    cdef size_t total = rows * (2 + 4 * <size_t>count)
    cdef Py_ssize_t row
    cdef int place
    cdef const int32_t* offsets
    for place in range(count):
        for row in range(rows):
            if _present(&columns[place], row):
                if columns[place].size:
                    total += columns[place].size
                else:
                    offsets = <const int32_t*>columns[place].values
                    total += offsets[row + 1] - offsets[row]
    return total


cdef void _fill(uint8_t* out, const Column* columns, int count, Py_ssize_t rows) noexcept nogil:
    cdef Py_ssize_t row
    cdef int place
    cdef const Column* column
    cdef const int32_t* offsets
    cdef int32_t length
    cdef uint64_t wide
    cdef uint32_t narrow
    for row in range(rows):
        out[0] = 0
        out[1] = <uint8_t>count
        out += 2
        for place in range(count):
            column = &columns[place]
            if not _present(column, row):
                out = _put32(out, 0xFFFFFFFF)
                continue
            if column.size == 0:
                offsets = <const int32_t*>column.values
                length = offsets[row + 1] - offsets[row]
                out = _put32(out, length)
                memcpy(out, column.text + offsets[row], length)
                out += length
                continue
            out = _put32(out, column.size)
            if column.size == 8:
                memcpy(&wide, column.values + 8 * row, 8)
                if column.is_id:
                    wide ^= <uint64_t>1 << 63
                out = _put32(_put32(out, <uint32_t>(wide >> 32)), <uint32_t>wide)
            elif column.size == 4:
                memcpy(&narrow, column.values + 4 * row, 4)
                out = _put32(out, narrow)
            else:
                memcpy(out, column.values + column.size * row, column.size)
                out += column.size


def encode_columns(list given, Py_ssize_t rows):
    """encode_columns(given, rows) -> bytes: the rows, without the header and the trailer.

    Each column is (size, is_id, buffers): the bytes of a value (0 for text), whether it is an id,
    and the buffers of its Arrow array, which begins with the first row.
    """
    cdef int count = len(given), place
    cdef Column* columns = <Column*>calloc(count, sizeof(Column))
    cdef size_t size
    if columns == NULL:
        raise MemoryError
    try:
        for place in range(count):
            width, is_id, buffers = given[place]
            columns[place].size = width
            columns[place].is_id = is_id
            columns[place].validity = _address(buffers[0])
            columns[place].values = _address(buffers[1])
            if width == 0:
                columns[place].text = _address(buffers[2])
        with nogil:
            size = _size(columns, count, rows)
        found = PyBytes_FromStringAndSize(NULL, size)
        out = <uint8_t*>PyBytes_AS_STRING(found)
        with nogil:
            _fill(out, columns, count, rows)
        return found
    finally:
        free(columns)


cdef const uint8_t* _address(object buffer) except? NULL:
    cdef uintptr_t address = 0 if buffer is None else buffer.address
    return <const uint8_t*>address
