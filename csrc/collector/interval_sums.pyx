# cython: language_level=3, binding=False, embedsignature=True
# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Adds up histograms of token intervals.

Behaves as infertrace.collector.store.pure_interval_sums does.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from infertrace.collector.store.pure_interval_sums import decoded
from infertrace.wire import token_intervals

__all__ = ["interval_sums"]

cdef enum:
    LOWEST = -1
    BUCKETS = 513
    MAX_VARINT_BYTES = 5  # of 32 bits

if (LOWEST, BUCKETS) != (token_intervals.LOWEST_BUCKET, token_intervals.MAX_BUCKETS):
    raise ImportError("interval_sums was built for other buckets")


cdef const uint8_t* _varint(const uint8_t* at, const uint8_t* end, uint64_t* value) noexcept nogil:
    """The place behind a number of at most 32 bits; NULL where there is none."""
    cdef int shift = 0
    value[0] = 0
    while at < end and shift < 7 * MAX_VARINT_BYTES:
        value[0] |= <uint64_t>(at[0] & 0x7F) << shift
        at += 1
        if not at[-1] & 0x80:
            return at if value[0] <= <uint64_t>0xFFFFFFFF else NULL
        shift += 7
    return NULL


cdef int _counts(
    const uint8_t* at, const uint8_t* end, uint32_t* counts, int64_t* offset
) noexcept nogil:
    """Read a message as `token_intervals.encode` writes it: how many counts, -1 for another one."""
    cdef uint64_t value
    cdef int count = 0
    offset[0] = 0
    if at < end and at[0] == 0x08:
        at = _varint(at + 1, end, &value)
        if at == NULL:
            return -1
        offset[0] = <int64_t>(value >> 1) ^ -<int64_t>(value & 1)
    if at >= end or at[0] != 0x12:
        return -1
    at = _varint(at + 1, end, &value)
    if at == NULL or value != <uint64_t>(end - at):
        return -1
    while at < end:
        if count == BUCKETS:
            return -1
        at = _varint(at, end, &value)
        if at == NULL:
            return -1
        counts[count] = <uint32_t>value
        count += 1
    return count


def interval_sums(list messages not None) -> list:
    """The sums of the counts of all buckets, the first of them LOWEST_BUCKET."""
    cdef uint64_t sums[BUCKETS]
    cdef uint32_t counts[BUCKETS]
    cdef int64_t offset, place
    cdef int count, index
    cdef const uint8_t* start
    cdef object message
    for index in range(BUCKETS):
        sums[index] = 0
    for message in messages:
        if type(message) is not bytes:
            raise TypeError("expected bytes")
        start = <const uint8_t*>PyBytes_AS_STRING(message)
        count = _counts(start, start + PyBytes_GET_SIZE(message), counts, &offset)
        if count < 0:
            for place, index_count in decoded(message):
                sums[place] += <uint64_t>index_count
            continue
        for index in range(count):
            place = offset - LOWEST + index
            if 0 <= place < BUCKETS:
                sums[place] += counts[index]
    return [sums[index] for index in range(BUCKETS)]
