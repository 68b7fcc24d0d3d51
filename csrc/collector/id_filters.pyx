# cython: language_level=3, binding=False, embedsignature=True
# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Filters of ids, in bounded memory and without an object for each id.

Behaves as infertrace.collector.store.pure_id_filters does.
"""

cimport cython
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

__all__ = ["DuplicateFilter", "TraceFilter"]

cdef uint64_t _mixed(uint64_t value) noexcept nogil:
    """MurmurHash3's finalizer."""
    value ^= value >> 33
    value *= <uint64_t>0xFF51AFD7ED558CCD
    value ^= value >> 33
    value *= <uint64_t>0xC4CEB9FE1A85EC53
    value ^= value >> 33
    return value


cdef uint64_t _trace_fingerprint(const uint8_t* trace_id) noexcept nogil:
    cdef uint64_t high, low
    memcpy(&high, trace_id, 8)
    memcpy(&low, trace_id + 8, 8)
    return _mixed((high * <uint64_t>0x9E3779B97F4A7C15) ^ ((low << 29) | (low >> 35)))


cdef uint64_t _fingerprint(const uint8_t* trace_id, const uint8_t* span_id) noexcept nogil:
    """64 bits for the 192 of both ids; never 0, which marks a free slot."""
    cdef uint64_t span, mixed
    memcpy(&span, span_id, 8)
    mixed = _mixed(span ^ _trace_fingerprint(trace_id))
    return mixed if mixed else 1


@cython.final
cdef class DuplicateFilter:
    """Remembers the last `capacity` to twice as many spans.

    Two tables: the newer one fills up, then takes the place of the older one.
    """

    cdef uint64_t* _newer
    cdef uint64_t* _older
    cdef size_t _slots, _count, _capacity

    def __cinit__(self, size_t capacity):
        self._slots = 2
        while self._slots < 2 * capacity:
            self._slots *= 2
        self._capacity = capacity
        self._newer = <uint64_t*>calloc(self._slots, 8)
        self._older = <uint64_t*>calloc(self._slots, 8)
        if self._newer == NULL or self._older == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._newer)
        free(self._older)

    cdef bint _holds(self, const uint64_t* table, uint64_t wanted) noexcept nogil:
        cdef size_t slot = wanted & (self._slots - 1)
        while table[slot]:
            if table[slot] == wanted:
                return True
            slot = (slot + 1) & (self._slots - 1)
        return False

    cdef bint _add(self, uint64_t wanted) noexcept nogil:
        """Add a fingerprint; returns whether it was there already."""
        cdef size_t slot
        if self._holds(self._newer, wanted) or self._holds(self._older, wanted):
            return True
        if self._count == self._capacity:
            self._newer, self._older = self._older, self._newer
            memset(self._newer, 0, self._slots * 8)
            self._count = 0
        slot = wanted & (self._slots - 1)
        while self._newer[slot]:
            slot = (slot + 1) & (self._slots - 1)
        self._newer[slot] = wanted
        self._count += 1
        return False

    def add(self, const uint8_t[::1] trace_ids, const uint8_t[::1] span_ids):
        """add(trace_ids, span_ids) -> list[int]: remember spans, 16 and 8 bytes each.

        Returns the positions of those that have probably been added before: no false negatives
        within the last `capacity`; false positives with probability 2**-64 per pair compared.
        """
        cdef size_t count = span_ids.shape[0] // 8, place
        cdef list seen = []
        if count * 16 > <size_t>trace_ids.shape[0]:
            raise ValueError("expected 16 bytes of trace ids for each 8 bytes of span ids")
        with nogil:
            for place in range(count):
                if self._add(_fingerprint(&trace_ids[16 * place], &span_ids[8 * place])):
                    with gil:
                        seen.append(place)
        return seen


cdef size_t _FILTER_BITS = 1 << 22


@cython.final
cdef class TraceFilter:
    """A Bloom filter of trace ids: false positives, but no false negatives.

    Sized for some 260,000 ids: then 0.3 % of other ids pass. Takes 512 KiB.
    """

    cdef uint64_t* _words

    def __cinit__(self):
        self._words = <uint64_t*>calloc(_FILTER_BITS // 64, 8)
        if self._words == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._words)

    def add(self, const uint8_t[::1] trace_ids):
        """add(trace_ids): add ids of 16 bytes each."""
        cdef size_t count = trace_ids.shape[0] // 16, place
        cdef uint64_t mixed, last = 0
        cdef int _probe
        with nogil:
            for place in range(count):
                mixed = _trace_fingerprint(&trace_ids[16 * place])
                if mixed == last:
                    continue
                last = mixed
                for _probe in range(4):
                    self._words[(mixed & (_FILTER_BITS - 1)) >> 6] |= <uint64_t>1 << (mixed & 63)
                    mixed = (mixed >> 13) | (mixed << 51)

    def may_hold(self, const uint8_t[::1] trace_id):
        """may_hold(trace_id) -> bool: False means that this id was not added."""
        cdef uint64_t mixed
        cdef int _probe
        if trace_id.shape[0] != 16:
            raise ValueError("expected 16 bytes")
        mixed = _trace_fingerprint(&trace_id[0])
        for _probe in range(4):
            if not self._words[(mixed & (_FILTER_BITS - 1)) >> 6] >> (mixed & 63) & 1:
                return False
            mixed = (mixed >> 13) | (mixed << 51)
        return True
