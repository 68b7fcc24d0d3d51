# The half of the delivery loop that holds the GIL: hands it batches, counts its results, and picks
# up samples. delivery_loop.h has the states, and which thread owns which field.

cdef enum:
    CLOCK_STEP_NS = 50_000_000
    MAX_FIELD_BYTES = 11  # a tag and the longest varint

# Each reason as the first field of an entry of SendSpanBatchRequest.dropped.
cdef tuple REASON_FIELDS = tuple(
    bytes((0x0A, len(reason))) + reason.encode() for reason in DROP_REASONS
)


# put_trailer() has a fixed room for the producer, three numbers, and a count for each reason.
assert (
    (2 + PRODUCER_ID_BYTES)
    + 3 * MAX_FIELD_BYTES
    + sum([2 + len(field) + MAX_FIELD_BYTES for field in REASON_FIELDS])
    <= <Py_ssize_t>INFERTRACE_TRAILER_ROOM
)


cdef int do_pending_work(Recorder recorder) except -1:
    """Do what threads without the GIL left for the thread that ends a span."""
    # Cleared first, so that work which arrives from now on sets it again.
    infertrace_compare_exchange(&recorder.buffer.pending_work, 1, 0)
    count_accepted(recorder.buffer)
    hand_over(recorder)
    take_sample(recorder)
    return 0


cdef int count_accepted(SpanBuffer buffer) except -1:
    """Count the accepted batch, if there is one: ANSWERED becomes IDLE."""
    cdef Segment segment
    if infertrace_load_acquire(&buffer.delivery.state) != INFERTRACE_ANSWERED:
        return 0
    if not buffer.abandoned:
        segment = buffer.handed
        buffer.settle_segment(segment, segment.slot.span_count, REJECTED)
        if buffer.spooled:
            # In one step: walking through its records would delay a span.
            infertrace_spool_settle_to(
                &buffer.spool,
                segment.slot.first_sequence + segment.slot.span_count - 1,
                segment.spool_end,
            )
    buffer.free(buffer.handed)
    buffer.handed = None
    infertrace_store_release(&buffer.delivery.state, INFERTRACE_IDLE)
    return 0


cdef bint hand_over(Recorder recorder) except -1:
    """Give the loop the batch it waits for: IDLE or WANTED becomes FILLED; False if ABSENT."""
    cdef SpanBuffer buffer = recorder.buffer
    cdef infertrace_delivery* delivery = &buffer.delivery
    cdef uint32_t state = infertrace_load_acquire(&delivery.state)
    cdef Segment segment
    if state == INFERTRACE_WANTED:
        follow_wall_clock(recorder)
    elif state != INFERTRACE_IDLE:
        return state != INFERTRACE_ABSENT
    segment = buffer.take(state == INFERTRACE_WANTED)
    if segment is None:
        return True
    buffer.handed = segment
    buffer.abandoned = False
    delivery.payload = <const char*>segment.start
    delivery.payload_size = segment.slot.used
    delivery.request.span_count = segment.slot.span_count
    delivery.trailer_size = put_trailer(delivery.trailer, buffer, segment) - delivery.trailer
    delivery.request.size = (
        delivery.payload_size + delivery.trailer_size + delivery.resource_size
    )
    infertrace_store_release(&delivery.state, INFERTRACE_FILLED)
    infertrace_wakeup_notify(&delivery.wakeup)
    return True


cdef uint8_t* put_trailer(uint8_t* p, SpanBuffer buffer, Segment segment) noexcept:
    """The twin of infertrace.exporting.envelope.encode."""
    cdef const uint64_t* dropped = infertrace_account_of(buffer.memory.header).dropped
    cdef int reason
    cdef Py_ssize_t size
    cdef PyObject* field
    buffer.batch_sequence += 1
    buffer.memory.header.batch_sequence = buffer.batch_sequence
    if buffer.spooled:
        buffer.spool.header.batch_sequence = buffer.batch_sequence
    size = PyBytes_GET_SIZE(buffer.producer_field)
    memcpy(p, PyBytes_AS_STRING(buffer.producer_field), size)
    p = wire_uint(p + size, 0x18, buffer.batch_sequence)
    p = wire_uint(p, 0x20, segment.slot.first_sequence)
    p = wire_uint(p, 0x28, <uint64_t>buffer.produced)
    for reason in range(<int>DROP_REASON_COUNT):
        if dropped[reason]:
            field = PyTuple_GET_ITEM(REASON_FIELDS, reason)
            size = PyBytes_GET_SIZE(<object>field)
            p[0] = 0x32
            p[1] = <uint8_t>(size + 1 + wire_varint_size(dropped[reason]))
            memcpy(p + 2, PyBytes_AS_STRING(<object>field), size)
            p = wire_uint(p + 2 + size, 0x10, dropped[reason])
    return p


cdef void follow_wall_clock(Recorder recorder) noexcept:
    cdef int64_t anchor = infertrace_wall_ns() - infertrace_monotonic_ns()
    if not -CLOCK_STEP_NS <= anchor - recorder.anchor <= CLOCK_STEP_NS:
        recorder.anchor = anchor


cdef object run_delivery_loop(
    Recorder recorder, bytes producer, bytes resource, uint64_t batch_sequence,
    infertrace_link link, int64_t interval_ns, int64_t stay_ns,
):
    cdef SpanBuffer buffer = recorder.buffer
    cdef infertrace_delivery* delivery = &buffer.delivery
    cdef int64_t until = infertrace_monotonic_ns() + stay_ns
    cdef Segment segment
    cdef bint ended
    # A second thread in the loop would share requests and answers with the first.
    if infertrace_load_acquire(&delivery.state) != INFERTRACE_ABSENT:
        return None
    if infertrace_wakeup_open(&delivery.wakeup):
        return None
    buffer.producer_field = producer
    buffer.batch_sequence = batch_sequence
    delivery.request.timeout_s = link.timeout_ns / 1e9
    delivery.resource = PyBytes_AS_STRING(resource)
    delivery.resource_size = PyBytes_GET_SIZE(resource)
    infertrace_store_release(&delivery.state, INFERTRACE_IDLE)
    hand_over(recorder)
    with nogil:
        ended = infertrace_run_delivery_loop(delivery, &link, interval_ns, until)
    count_accepted(buffer)
    answer = OSError(EPIPE, os.strerror(EPIPE)) if ended else None
    if infertrace_load_acquire(&delivery.state) == INFERTRACE_FAILED:
        if delivery.answer_size < 0:
            answer = OSError(-delivery.answer_size, os.strerror(-delivery.answer_size))
        else:
            answer = PyBytes_FromStringAndSize(delivery.answer, delivery.answer_size)
    infertrace_store_release(&delivery.state, INFERTRACE_ABSENT)
    infertrace_store_release(&delivery.interrupted, 0)
    segment, buffer.handed = buffer.handed, None
    if segment is not None and buffer.abandoned:
        buffer.free(segment)
        segment = None
    if segment is None:
        return buffer.batch_sequence, None, answer if ended else None
    return buffer.batch_sequence, buffer.as_batch(segment), answer


cdef int abandon(SpanBuffer buffer) except -1:
    """Count the batch in flight as dropped; it may still arrive."""
    cdef Segment segment = buffer.handed
    count_accepted(buffer)
    if buffer.handed is not None and not buffer.abandoned:
        buffer.abandoned = True
        buffer.settle_segment(segment, 0, SHUTDOWN)
        if segment.data is NULL:
            segment.slot.first_sequence = 0  # the loop may still read it, and nobody else
    return 0


cdef int take_sample(Recorder recorder) except -1:
    """Have spans carry the newest sample of the process from now on."""
    cdef infertrace_process_sample* process = &recorder.process
    if infertrace_compare_exchange(&process.state, INFERTRACE_NEW_SAMPLE, INFERTRACE_BUSY_SAMPLE):
        recorder.sample = (
            PyBytes_FromStringAndSize(process.metrics, process.size), process.taken_at
        )
        infertrace_store_release(&process.state, INFERTRACE_NO_SAMPLE)
    return 0
