# cython: language_level=3, binding=False, embedsignature=True
# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Filters of ids, in bounded memory and without an object for each id.

Behaves as infertrace.collector.store.pure_id_filters does.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define PREFETCH(address) __builtin_prefetch(address)
    #else
    #define PREFETCH(address) ((void)(address))
    #endif
    """
    void PREFETCH(const void* address) noexcept nogil

cdef extern from "collector/zeroed_memory.h":
    void* zeroed_memory(size_t size) noexcept nogil

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
    """64 bits for the 192 of both ids."""
    cdef uint64_t span
    memcpy(&span, span_id, 8)
    return _mixed(span ^ _trace_fingerprint(trace_id))


cdef struct Generation:
    uint32_t* slots  # half of a fingerprint each, the other half says where; 0 is free
    size_t mask
    size_t capacity
    size_t count
    int64_t latest_start


# So many slots come from memory together; each lies somewhere else in it.
cdef enum:
    FETCHED_TOGETHER = 16

# Doubling from 1/64 of the capacity to 1/4 of it, these are never more.
cdef enum:
    MAX_GENERATIONS = 12


@cython.final
cdef class DuplicateFilter:
    """DuplicateFilter(capacity): remembers at least the last `capacity` spans.

    Spans fill one table after the other, each twice as large as the one before, up to a quarter of
    the capacity; where the others suffice, the oldest is forgotten. At most half of the slots of a
    table are taken, so a full filter needs 8 to 10 bytes a span.
    """

    cdef Generation _generations[<int>MAX_GENERATIONS]
    cdef int _generation_count
    cdef size_t _capacity
    cdef int64_t _forgotten_until

    def __cinit__(self, size_t capacity):
        self._capacity = capacity
        if self._begin(max(1, capacity // 64)) < 0:
            raise MemoryError

    def __dealloc__(self):
        cdef int number
        for number in range(self._generation_count):
            free(self._generations[number].slots)

    @property
    def forgotten_until_ns(self):
        """The latest start of a span that may be forgotten, nanoseconds since 1970; 0: none is."""
        return self._forgotten_until

    def forget(self, int64_t latest_start_ns):
        """forget(latest_start_ns): there are spans up to that start that were never added."""
        self._forgotten_until = max(self._forgotten_until, latest_start_ns)

    cdef int _begin(self, size_t capacity) noexcept nogil:
        cdef Generation* begun
        cdef size_t slots = 2
        self._drop_oldest()
        while slots < 2 * capacity:
            slots *= 2
        begun = &self._generations[self._generation_count]
        memset(begun, 0, sizeof(Generation))
        begun.slots = <uint32_t*>zeroed_memory(slots * sizeof(uint32_t))
        if begun.slots == NULL:
            return -1
        begun.mask = slots - 1
        begun.capacity = capacity
        self._generation_count += 1
        return 0

    cdef void _drop_oldest(self) noexcept nogil:
        cdef size_t total = 0
        cdef int number
        for number in range(self._generation_count):
            total += self._generations[number].count
        while self._generation_count and total - self._generations[0].count >= self._capacity:
            total -= self._generations[0].count
            if self._forgotten_until < self._generations[0].latest_start:
                self._forgotten_until = self._generations[0].latest_start
            free(self._generations[0].slots)
            self._generation_count -= 1
            for number in range(self._generation_count):
                self._generations[number] = self._generations[number + 1]

    cdef void _fetch(self, uint64_t wanted) noexcept nogil:
        cdef Generation* table
        cdef int number
        for number in range(self._generation_count):
            table = &self._generations[number]
            PREFETCH(&table.slots[wanted & table.mask])

    cdef int _add(self, uint64_t wanted, int64_t start) noexcept nogil:
        """Add a fingerprint; 1 if it was there already, -1 without memory."""
        cdef uint32_t half = <uint32_t>(wanted >> 32)
        cdef size_t slot
        cdef int number
        cdef Generation* table
        if half == 0:
            half = 1
        for number in range(self._generation_count - 1, -1, -1):
            table = &self._generations[number]
            slot = wanted & table.mask
            while table.slots[slot]:
                if table.slots[slot] == half:
                    return 1
                slot = (slot + 1) & table.mask
        table = &self._generations[self._generation_count - 1]
        if table.count == table.capacity:
            if self._begin(min(2 * table.capacity, max(1, self._capacity // 4))) < 0:
                return -1
            table = &self._generations[self._generation_count - 1]
            slot = wanted & table.mask
        else:
            slot = wanted & table.mask
            while table.slots[slot]:
                slot = (slot + 1) & table.mask
        table.slots[slot] = half
        table.count += 1
        if table.latest_start < start:
            table.latest_start = start
        return 0

    def add(
        self,
        const uint8_t[::1] trace_ids,
        const uint8_t[::1] span_ids,
        const uint8_t[::1] starts,
    ):
        """add(trace_ids, span_ids, starts) -> list[int]: remember spans, 16, 8 and 8 bytes each.

        `starts` are nanoseconds since 1970. Returns the positions of those that have probably been
        added before: no false negatives among the last `capacity`; a false positive with a
        probability of some 2**-31 for each table.
        """
        cdef size_t count = span_ids.shape[0] // 8, first = 0, end, place
        cdef uint64_t fingerprint, wanted[<int>FETCHED_TOGETHER]
        cdef list seen = []
        cdef int found
        cdef int64_t start
        if count * 16 > <size_t>trace_ids.shape[0] or count * 8 > <size_t>starts.shape[0]:
            raise ValueError("expected 16 bytes of trace ids, and 8 of starts, for each span id")
        with nogil:
            while first < count:
                end = min(first + <size_t>FETCHED_TOGETHER, count)
                for place in range(first, end):
                    fingerprint = _fingerprint(&trace_ids[16 * place], &span_ids[8 * place])
                    wanted[place - first] = fingerprint
                    self._fetch(fingerprint)
                for place in range(first, end):
                    memcpy(&start, &starts[8 * place], 8)
                    found = self._add(wanted[place - first], start)
                    if found:
                        with gil:
                            if found < 0:
                                raise MemoryError
                            seen.append(place)
                first = end
        return seen


cdef size_t _FILTER_BITS = 1 << 22


@cython.final
cdef class TraceFilter:
    """A Bloom filter of trace ids: false positives, but no false negatives.

    Sized for some 260,000 ids: then 0.3 % of other ids pass. Takes 512 KiB.
    """

    cdef uint64_t* _words

    def __cinit__(self):
        self._words = <uint64_t*>zeroed_memory(_FILTER_BITS // 8)
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
