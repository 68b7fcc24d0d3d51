# What those with the GIL do for the threads that deliver and sample without it.

cdef enum:
    CLOCK_STEP_NS = 50_000_000
    PRODUCER_ID_BYTES = 16
    MAX_FIELD_BYTES = 11  # a tag and the longest varint

# Each reason as the first field of an entry of SendSpanBatchRequest.dropped.
cdef tuple REASON_FIELDS = tuple(
    bytes((0x0A, len(reason))) + reason.encode() for reason in DROP_REASONS
)


# put_trailer() writes into a fixed room: the producer, three numbers, and a count a reason.
assert (
    (2 + PRODUCER_ID_BYTES)
    + 3 * MAX_FIELD_BYTES
    + sum([2 + len(field) + MAX_FIELD_BYTES for field in REASON_FIELDS])
    <= <Py_ssize_t>INFERTRACE_TRAILER_ROOM
)


cdef int attend_to_threads(Recorder recorder) except -1:
    # First: what comes from now on asks again.
    infertrace_change(&recorder.buffer.attention, 1, 0)
    collect(recorder.buffer)
    hand_over(recorder)
    take_sample(recorder)
    return 0


cdef int collect(SpanBuffer buffer) except -1:
    """Count the batch that was accepted, if there is one."""
    cdef Segment segment
    if infertrace_read(&buffer.handoff.state) != INFERTRACE_ANSWERED:
        return 0
    if not buffer.abandoned:
        segment = buffer.handed
        buffer.settle(segment.used, segment.span_count, segment.span_count, REJECTED)
        if buffer.spooled:
            # In one step: to go through its records would hold a span up.
            infertrace_spool_settle_to(
                &buffer.spool,
                segment.first_sequence + segment.span_count - 1,
                segment.spool_end,
            )
        buffer.keep_for_reuse(segment)
    buffer.handed = None
    infertrace_write(&buffer.handoff.state, INFERTRACE_IDLE)
    return 0


cdef bint hand_over(Recorder recorder) except -1:
    """Give the thread what it waits for; False where no thread attends."""
    cdef SpanBuffer buffer = recorder.buffer
    cdef infertrace_handoff* handoff = &buffer.handoff
    cdef uint32_t state = infertrace_read(&handoff.state)
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
    handoff.payload = BytesData(segment.data)
    handoff.payload_size = segment.used
    handoff.request.span_count = segment.span_count
    handoff.trailer_size = put_trailer(handoff.trailer, buffer, segment) - handoff.trailer
    handoff.request.size = (
        handoff.payload_size + handoff.trailer_size + handoff.resource_size
    )
    infertrace_write(&handoff.state, INFERTRACE_FILLED)
    infertrace_bell_ring(&handoff.bell)
    return True


cdef uint8_t* put_trailer(uint8_t* p, SpanBuffer buffer, Segment segment) noexcept:
    """As infertrace.exporting.envelope.encode."""
    cdef int reason
    cdef Py_ssize_t size
    cdef PyObject* field
    buffer.batch_sequence += 1
    if buffer.spooled:
        buffer.spool.header.batch_sequence = buffer.batch_sequence
    size = PyBytes_GET_SIZE(buffer.producer_field)
    memcpy(p, PyBytes_AS_STRING(buffer.producer_field), size)
    p = wire_uint(p + size, 0x18, buffer.batch_sequence)
    p = wire_uint(p, 0x20, segment.first_sequence)
    p = wire_uint(p, 0x28, <uint64_t>buffer.produced)
    for reason in range(<int>DROP_REASON_COUNT):
        if buffer.dropped[reason]:
            field = PyTuple_GET_ITEM(REASON_FIELDS, reason)
            size = PyBytes_GET_SIZE(<object>field)
            p[0] = 0x32
            p[1] = <uint8_t>(size + 1 + wire_varint_size(<uint64_t>buffer.dropped[reason]))
            memcpy(p + 2, PyBytes_AS_STRING(<object>field), size)
            p = wire_uint(p + 2 + size, 0x10, <uint64_t>buffer.dropped[reason])
    return p


cdef void follow_wall_clock(Recorder recorder) noexcept:
    cdef int64_t anchor = infertrace_wall_ns() - infertrace_monotonic_ns()
    if not -CLOCK_STEP_NS <= anchor - recorder.anchor <= CLOCK_STEP_NS:
        recorder.anchor = anchor


cdef object attend(
    Recorder recorder, bytes producer, bytes resource, uint64_t batch_sequence,
    infertrace_sending sending, int64_t interval_ns, int64_t stay_ns,
):
    cdef SpanBuffer buffer = recorder.buffer
    cdef infertrace_handoff* handoff = &buffer.handoff
    cdef int64_t until = infertrace_monotonic_ns() + stay_ns
    cdef Segment segment
    cdef bint ended
    # Another thread that attends would share this one's requests and answers.
    if infertrace_read(&handoff.state) != INFERTRACE_ABSENT or infertrace_bell_hang(&handoff.bell):
        return None
    buffer.producer_field = producer
    buffer.batch_sequence = batch_sequence
    handoff.request.timeout_s = sending.timeout_ns / 1e9
    handoff.resource = PyBytes_AS_STRING(resource)
    handoff.resource_size = PyBytes_GET_SIZE(resource)
    infertrace_write(&handoff.state, INFERTRACE_IDLE)
    hand_over(recorder)
    with nogil:
        ended = infertrace_attend(handoff, &sending, interval_ns, until)
    collect(buffer)
    answer = OSError(EPIPE, os.strerror(EPIPE)) if ended else None
    if infertrace_read(&handoff.state) == INFERTRACE_FAILED:
        if handoff.answer_size < 0:
            answer = OSError(-handoff.answer_size, os.strerror(-handoff.answer_size))
        else:
            answer = PyBytes_FromStringAndSize(handoff.answer, handoff.answer_size)
    infertrace_write(&handoff.state, INFERTRACE_ABSENT)
    infertrace_write(&handoff.interrupted, 0)
    segment, buffer.handed = buffer.handed, None
    if segment is None or buffer.abandoned:
        return buffer.batch_sequence, None, answer if ended else None
    return buffer.batch_sequence, buffer.as_batch(segment), answer


cdef int abandon(SpanBuffer buffer) except -1:
    """Count what the thread has not delivered yet as dropped; it may still arrive."""
    cdef Segment segment = buffer.handed
    collect(buffer)
    if buffer.handed is not None and not buffer.abandoned:
        buffer.abandoned = True
        buffer.settle(segment.used, segment.span_count, 0, SHUTDOWN)
    return 0


cdef int take_sample(Recorder recorder) except -1:
    """Let the spans that end carry the newest sample of the process."""
    cdef infertrace_process_sample* process = &recorder.process
    if infertrace_change(&process.state, INFERTRACE_NEW_SAMPLE, INFERTRACE_BUSY_SAMPLE):
        recorder.sample = (
            PyBytes_FromStringAndSize(process.metrics, process.size), process.taken_at
        )
        infertrace_write(&process.state, INFERTRACE_NO_SAMPLE)
    return 0
