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
    PRODUCER_ID_BYTES = 16
    PAGE_BYTES = 4096  # where pages are larger, fewer of them are given back
    SPARE_SLOTS = 32  # for segments that were sealed before they were full
    SETTLED_TAG = 0  # in place of a span's tag


# Not tracked by the GC: allocating a segment must never run it.
@cython.final
@cython.internal
@cython.no_gc
cdef class Segment:
    cdef infertrace_slot* slot  # what is in it
    cdef infertrace_slot own  # that, where it is not shared
    cdef uint8_t* start  # of its first span
    cdef PyObject* data  # a bytes object that nobody else has seen yet; NULL: it is shared
    cdef Py_ssize_t capacity
    cdef size_t width  # slots that it takes, where it is shared
    cdef int64_t settled  # spans of it
    cdef uint64_t spool_end  # the end of its last record in the spool

    def __dealloc__(self):
        Py_XDECREF(self.data)


# What a buffer without a segment has: it is full.
cdef infertrace_slot no_slot


@cython.final
@cython.internal
cdef class SpanBuffer:
    cdef Segment filling
    # Of `filling`: kept here for the sake of speed.
    cdef infertrace_slot* slot
    cdef uint8_t* start
    cdef Py_ssize_t capacity
    cdef list sealed
    cdef list lent  # shared segments that were copied into a batch which is not settled
    cdef Py_ssize_t max_buffer_bytes, max_batch_bytes
    cdef Py_ssize_t held_bytes  # queued and in flight
    cdef bint closed
    cdef int64_t produced, invalid_fields
    cdef infertrace_memory memory  # with the other counters
    cdef bytes producer_id  # None: nothing is to be shared
    cdef bytes resource
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
        infertrace_unshare(&self.memory)
        infertrace_wakeup_close(&self.delivery.wakeup)

    def __cinit__(self, Py_ssize_t max_buffer_bytes, Py_ssize_t max_batch_bytes):
        self.max_buffer_bytes = max_buffer_bytes
        self.max_batch_bytes = max_batch_bytes
        self.delivery.pending_work = &self.pending_work
        infertrace_share_nothing(&self.memory)
        self.reset()

    cdef int reset(self) except -1:
        self.fill(None)
        self.sealed = []
        self.lent = []
        self.forget_spares()
        self.detach()
        infertrace_wakeup_close(&self.delivery.wakeup)
        self.delivery.state = INFERTRACE_ABSENT
        self.delivery.interrupted = self.pending_work = 0
        self.handed = None
        self.abandoned = False
        self.held_bytes = 0
        self.closed = False
        self.produced = self.invalid_fields = 0
        self.producer_id = self.resource = None
        infertrace_unshare(&self.memory)
        return 0

    cdef void forget_spares(self) noexcept:
        cdef int slot
        for slot in range(SPARE_COUNT):
            Py_XDECREF(self.spare[slot])
            self.spare[slot] = NULL

    cdef int share(self, bytes producer_id, bytes resource) except -1:
        """Have segments lie in memory that a sender process maps too, from the next one on."""
        if len(producer_id) != PRODUCER_ID_BYTES:
            raise ValueError(f"producer_id: expected {PRODUCER_ID_BYTES} bytes")
        self.producer_id = producer_id
        self.resource = resource
        self.describe_memory()
        return 0

    cdef void describe_memory(self) noexcept:
        infertrace_set_resource(
            &self.memory,
            <const uint8_t*>PyBytes_AS_STRING(self.producer_id),
            PyBytes_AS_STRING(self.resource),
            PyBytes_GET_SIZE(self.resource),
        )

    cdef void begin_sharing(self) noexcept:
        cdef size_t slot_bytes = (self.max_batch_bytes + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
        # Two segments in a row hold more than one batch.
        cdef size_t slot_count = 2 * (self.max_buffer_bytes // self.max_batch_bytes) + SPARE_SLOTS
        if infertrace_share(&self.memory, slot_bytes, slot_count):
            self.producer_id = None  # not asked again: the memory of the process has to do
        else:
            self.describe_memory()

    cdef inline int64_t pending(self) noexcept:
        cdef infertrace_shared_header* header = self.memory.header
        return header.next_sequence - 1 - infertrace_account_of(header).settled

    cdef inline uint8_t* reserve(self, Py_ssize_t bound) except NULL:
        """Room for `bound` bytes at the end of the segment that is being filled."""
        cdef Py_ssize_t end = self.slot.used + bound
        # A segment made for a span larger than a batch may hold that span, or one batch.
        if end > self.capacity or (self.slot.span_count and end > self.max_batch_bytes):
            self.open_segment(bound)
        return self.start + self.slot.used

    cdef void fill(self, Segment segment) noexcept:
        self.filling = segment
        if segment is None:
            self.slot, self.start, self.capacity = &no_slot, NULL, -1
        else:
            self.slot, self.start = segment.slot, segment.start
            self.capacity = segment.capacity

    cdef int open_segment(self, Py_ssize_t bound) except -1:
        cdef Segment segment
        self.seal()
        if self.producer_id is not None and self.memory.descriptor < 0:
            self.begin_sharing()
        segment = Segment.__new__(Segment)
        segment.capacity = max(bound, self.max_batch_bytes)
        if not self.place_in_memory(segment):
            segment.slot = &segment.own
            segment.data = self.recycle() if bound <= self.max_batch_bytes else NULL
            if segment.data is NULL:
                segment.data = NewBytes(NULL, segment.capacity)
            if segment.data is NULL:
                raise MemoryError
            segment.start = <uint8_t*>BytesData(segment.data)
        segment.slot.first_sequence = self.memory.header.next_sequence
        self.fill(segment)
        return 0

    cdef bint place_in_memory(self, Segment segment) noexcept:
        cdef infertrace_shared_header* header = self.memory.header
        if self.memory.descriptor < 0:
            return False
        segment.width = (segment.capacity + header.slot_bytes - 1) // header.slot_bytes
        segment.slot = infertrace_take_slots(&self.memory, segment.width)
        if segment.slot is NULL:
            return False
        segment.start = <uint8_t*>header + segment.slot.place
        return True

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
        cdef const uint8_t* p = segment.start
        cdef const uint8_t* end = p + segment.slot.used
        cdef uint64_t sequence = segment.slot.first_sequence
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
        """Count spans that got no number."""
        infertrace_account_of(self.memory.header).dropped[reason] += spans
        self.tell_spool_of_drops()

    cdef inline void tell_spool_of_drops(self) noexcept:
        cdef int number
        if self.spooled:
            for number in range(<int>DROP_REASON_COUNT):
                self.spool.header.dropped[number] = (
                    infertrace_account_of(self.memory.header).dropped[number]
                )

    cdef inline bint commit(self, Py_ssize_t size) noexcept:
        """Add the `size` bytes written to the reserved room, or count why they are dropped."""
        cdef infertrace_slot* slot = self.slot
        if size > MAX_SPAN_BYTES or size > self.max_buffer_bytes:
            self.drop(OVERSIZE, 1)
            return False
        if self.held_bytes + size > self.max_buffer_bytes:
            self.drop(BUFFER_FULL, 1)
            return False
        if self.spooled:
            if not infertrace_spool_append(
                &self.spool, self.start + slot.used, size, self.memory.header.next_sequence
            ):
                self.drop(BUFFER_FULL, 1)
                return False
            self.filling.spool_end = self.spool.tail
        infertrace_keep_order()
        slot.used += size
        slot.span_count += 1
        self.held_bytes += size
        self.memory.header.next_sequence += 1
        return True

    cdef int seal(self) except -1:
        cdef Segment segment = self.filling
        if segment is None:
            return 0
        self.fill(None)
        if segment.slot.span_count:
            self.sealed.append(segment)
        else:
            self.free(segment)
        return 0

    cdef void free(self, Segment segment) noexcept:
        """Use what it lies in for other spans, once nobody reads it."""
        if segment.data is NULL:
            infertrace_free_slots(&self.memory, segment.slot, segment.width)
        else:
            self.keep_for_reuse(segment)

    cdef Segment take(self, bint partial):
        """The oldest full segment; with `partial`, any that holds spans. None if there is none."""
        if not self.sealed and partial:
            self.seal()
        return self.sealed.pop(0) if self.sealed else None

    cdef object as_batch(self, Segment segment):
        cdef infertrace_slot* slot = segment.slot
        cdef object payload
        if segment.data is NULL:
            # A copy: what is shared must not change while a part of it may still be settled.
            payload = PyBytes_FromStringAndSize(<const char*>segment.start, slot.used)
            self.lent.append(segment)
        else:
            infertrace_cut_bytes(segment.data, slot.used)
            self.keep_for_reuse(segment)
            payload = <object>segment.data
        return Batch(payload, slot.span_count, slot.first_sequence)

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
        self, uint64_t first, Py_ssize_t size, int64_t spans, int64_t delivered, int reason
    ) noexcept:
        self.held_bytes -= size
        infertrace_settle_account(self.memory.header, first, spans, delivered, reason)
        self.tell_spool_of_drops()

    cdef void settle_segment(self, Segment segment, int64_t delivered, int reason) noexcept:
        cdef infertrace_slot* slot = segment.slot
        self.settle(slot.first_sequence, slot.used, slot.span_count, delivered, reason)

    cdef int settle_lent(self, uint64_t first, int64_t spans) except -1:
        """These spans of a batch are settled: the memory must not say otherwise."""
        cdef Segment segment
        cdef uint64_t number
        cdef uint8_t* p
        for segment in self.lent:
            number = segment.slot.first_sequence
            if not number <= first < number + <uint64_t>segment.slot.span_count:
                continue
            segment.settled += spans
            if segment.settled >= segment.slot.span_count:
                self.lent.remove(segment)
                self.free(segment)
                return 0
            p = segment.start
            while number < first + <uint64_t>spans:
                if number >= first:
                    p[0] = SETTLED_TAG
                p += wire_entry_size(p)
                number += 1
            return 0
        return 0

    cdef int discard(self) except -1:
        cdef Segment segment
        abandon(self)
        self.seal()
        for segment in self.sealed:
            self.settle_segment(segment, 0, SHUTDOWN)
            self.free(segment)
        self.sealed = []
        return 0
