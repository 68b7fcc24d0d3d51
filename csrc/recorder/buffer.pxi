# The buffer: encoded spans in segments; the exporter takes each segment as one batch.

# In the order of infertrace.buffering.ledger.DROP_REASONS.
cdef enum DropReason:
    BUFFER_FULL
    OVERSIZE
    INVALID
    REJECTED
    SHUTDOWN
    DROP_REASON_COUNT


assert DROP_REASONS == ("buffer_full", "oversize", "invalid", "rejected", "shutdown")


cdef enum:
    SPARE_COUNT = 4
    SOLE_REFERENCE = 1


# Not tracked by the GC: allocating a segment must never run it.
@cython.final
@cython.internal
@cython.no_gc
cdef class Segment:
    cdef PyObject* data  # a bytes object that nobody else has seen yet
    cdef Py_ssize_t capacity, used, span_count
    cdef uint64_t first_sequence
    cdef uint64_t spool_end  # the end of its last record in the spool

    def __dealloc__(self):
        Py_XDECREF(self.data)


@cython.final
@cython.internal
cdef class SpanBuffer:
    cdef Segment filling
    cdef list sealed
    cdef Py_ssize_t max_buffer_bytes, max_batch_bytes
    cdef Py_ssize_t held_bytes  # queued and in flight
    cdef uint64_t next_sequence
    cdef bint closed
    cdef int64_t produced, delivered, pending, invalid_fields
    cdef int64_t[<Py_ssize_t>DROP_REASON_COUNT] dropped
    cdef PyObject* spare[SPARE_COUNT]  # payloads in flight, reused once they are free
    cdef infertrace_spool spool
    cdef bint spooled
    cdef infertrace_delivery delivery
    cdef Segment handed  # owns the bytes that the delivery loop has
    cdef bint abandoned  # a shutdown has counted it, so its answer is not counted
    cdef uint32_t pending_work
    cdef uint64_t batch_sequence
    cdef bytes producer_field

    def __dealloc__(self):
        self.forget_spares()
        self.detach()
        infertrace_wakeup_close(&self.delivery.wakeup)

    def __cinit__(self, Py_ssize_t max_buffer_bytes, Py_ssize_t max_batch_bytes):
        self.max_buffer_bytes = max_buffer_bytes
        self.max_batch_bytes = max_batch_bytes
        self.delivery.pending_work = &self.pending_work
        self.reset()

    cdef int reset(self) except -1:
        self.filling = None
        self.sealed = []
        self.forget_spares()
        self.detach()
        infertrace_wakeup_close(&self.delivery.wakeup)
        self.delivery.state = INFERTRACE_ABSENT
        self.delivery.interrupted = self.pending_work = 0
        self.handed = None
        self.abandoned = False
        self.held_bytes = 0
        self.next_sequence = 1
        self.closed = False
        self.produced = self.delivered = self.pending = self.invalid_fields = 0
        memset(self.dropped, 0, sizeof(self.dropped))
        return 0

    cdef void forget_spares(self) noexcept:
        cdef int slot
        for slot in range(SPARE_COUNT):
            Py_XDECREF(self.spare[slot])
            self.spare[slot] = NULL

    cdef inline uint8_t* reserve(self, Py_ssize_t bound) except NULL:
        """Room for `bound` bytes at the end of the segment that is being filled."""
        if (
            self.filling is None
            or self.filling.used + bound > self.filling.capacity
            # A segment made for a span larger than a batch may hold that span, or one batch.
            or (self.filling.span_count and self.filling.used + bound > self.max_batch_bytes)
        ):
            self.open_segment(bound)
        return <uint8_t*>BytesData(self.filling.data) + self.filling.used

    cdef int open_segment(self, Py_ssize_t bound) except -1:
        self.seal()
        cdef Segment segment = Segment.__new__(Segment)
        segment.capacity = max(bound, self.max_batch_bytes)
        segment.data = self.recycle() if bound <= self.max_batch_bytes else NULL
        if segment.data is NULL:
            segment.data = NewBytes(NULL, segment.capacity)
        if segment.data is NULL:
            raise MemoryError
        segment.first_sequence = self.next_sequence
        self.filling = segment
        return 0

    cdef int attach(
        self, int descriptor, Py_ssize_t header_bytes, Py_ssize_t size_bytes
    ) except -1:
        """Write the spans held now, and all later ones, to this spool too."""
        cdef Segment segment
        cdef int outcome = infertrace_spool_map(&self.spool, descriptor, header_bytes, size_bytes)
        if outcome:
            raise OSError(-outcome, os.strerror(-outcome))
        self.spooled = True
        for segment in self.sealed:
            self.keep_segment(segment)
        if self.filling is not None:
            self.keep_segment(self.filling)
        return 0

    cdef void keep_segment(self, Segment segment) noexcept:
        cdef const uint8_t* p = <const uint8_t*>BytesData(segment.data)
        cdef const uint8_t* end = p + segment.used
        cdef uint64_t sequence = segment.first_sequence
        cdef Py_ssize_t size
        while p < end:
            size = wire_entry_size(p)
            infertrace_spool_append(&self.spool, p, size, sequence)
            p += size
            sequence += 1
        segment.spool_end = self.spool.tail

    cdef void detach(self) noexcept:
        if self.spooled:
            self.spooled = False
            infertrace_spool_unmap(&self.spool)

    cdef inline void drop(self, int reason, int64_t spans) noexcept:
        cdef int number
        self.dropped[reason] += spans
        if self.spooled:
            for number in range(<int>DROP_REASON_COUNT):
                self.spool.header.dropped[number] = self.dropped[number]

    cdef inline bint commit(self, Py_ssize_t size) noexcept:
        """Add the `size` bytes written to the reserved room, or count why they are dropped."""
        cdef const uint8_t* span
        if size > MAX_SPAN_BYTES or size > self.max_buffer_bytes:
            self.drop(OVERSIZE, 1)
            return False
        if self.held_bytes + size > self.max_buffer_bytes:
            self.drop(BUFFER_FULL, 1)
            return False
        if self.spooled:
            span = <const uint8_t*>BytesData(self.filling.data) + self.filling.used
            if not infertrace_spool_append(&self.spool, span, size, self.next_sequence):
                self.drop(BUFFER_FULL, 1)
                return False
            self.filling.spool_end = self.spool.tail
        self.filling.used += size
        self.filling.span_count += 1
        self.held_bytes += size
        self.next_sequence += 1
        self.pending += 1
        return True

    cdef int seal(self) except -1:
        cdef Segment segment = self.filling
        if segment is None:
            return 0
        self.filling = None
        if segment.span_count:
            self.sealed.append(segment)
        return 0

    cdef Segment take(self, bint partial):
        """The oldest full segment; with `partial`, any that holds spans. None if there is none."""
        if not self.sealed and partial:
            self.seal()
        return self.sealed.pop(0) if self.sealed else None

    cdef object as_batch(self, Segment segment):
        infertrace_cut_bytes(segment.data, segment.used)
        self.keep_for_reuse(segment)
        return Batch(<object>segment.data, segment.span_count, segment.first_sequence)

    cdef void keep_for_reuse(self, Segment segment) noexcept:
        cdef int slot
        if segment.capacity != self.max_batch_bytes:
            return
        for slot in range(SPARE_COUNT):
            if self.spare[slot] is NULL:
                Py_INCREF(<object>segment.data)
                self.spare[slot] = segment.data
                return

    cdef PyObject* recycle(self) noexcept:
        """A payload that was handed out and that nobody else references any more, or NULL.

        Fresh memory from the kernel would cost a span more than its encoding.
        """
        cdef int slot
        cdef PyObject* data
        for slot in range(SPARE_COUNT):
            data = self.spare[slot]
            if data is not NULL and Py_REFCNT(<object>data) == SOLE_REFERENCE:
                self.spare[slot] = NULL
                infertrace_cut_bytes(data, self.max_batch_bytes)
                return data
        return NULL

    cdef void settle(
        self, Py_ssize_t size, int64_t spans, int64_t delivered, int reason
    ) noexcept:
        self.held_bytes -= size
        self.pending -= spans
        self.delivered += delivered
        self.drop(reason, spans - delivered)

    cdef int discard(self) except -1:
        cdef Segment segment
        cdef int64_t left = 0
        abandon(self)
        self.seal()
        for segment in self.sealed:
            left += segment.span_count
            self.held_bytes -= segment.used
        self.sealed = []
        self.pending -= left
        self.drop(SHUTDOWN, left)
        return 0
