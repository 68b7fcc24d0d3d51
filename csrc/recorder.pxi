# The recorder: makes spans and holds the finished ones until the exporter takes them.


@cython.final
cdef class Recorder:
    """Makes spans and holds the finished ones until the exporter takes them."""

    cdef SpanBuffer buffer
    cdef object wake
    cdef bint awake
    cdef public bint enabled
    cdef public int64_t anchor  # wall clock minus monotonic clock, nanoseconds
    cdef str service
    cdef bytes service_field
    cdef const char* service_data
    cdef Py_ssize_t service_size
    cdef object sample_pair
    cdef bytes sample_field
    cdef const char* sample_data
    cdef Py_ssize_t sample_size
    cdef int64_t sampled_at
    cdef bint samples_all
    cdef uint64_t sample_bound
    cdef infertrace_id_streams ids

    def __init__(self, *, max_buffer_bytes, max_batch_bytes, wake):
        self.buffer = SpanBuffer.__new__(SpanBuffer, max_buffer_bytes, max_batch_bytes)
        self.wake = wake
        self.enabled = True
        self.samples_all = True
        self.service_name = ""
        self.sample = None
        self.anchor = time.time_ns() - infertrace_monotonic_ns()
        self.reset()

    def reset(self):
        """Start anew, as a forked child must: ids, buffer and ledger are its own."""
        cdef bytes seed = os.urandom(sizeof(self.ids))
        memcpy(&self.ids, PyBytes_AS_STRING(seed), sizeof(self.ids))
        self.awake = False
        self.buffer.reset()

    @property
    def service_name(self):
        return self.service

    @service_name.setter
    def service_name(self, str name not None):
        encoded = name.encode()
        cdef uint8_t[16] head
        cdef uint8_t* end = head
        if encoded:
            end = wire_uint(head, 0x22, len(encoded))
        field = PyBytes_FromStringAndSize(<const char*>head, end - head) + encoded
        self.service = name
        self.service_field = field
        self.service_data = PyBytes_AS_STRING(field)
        self.service_size = PyBytes_GET_SIZE(field)

    @property
    def sample(self):
        """The encoded resource metrics and when they were taken (monotonic nanoseconds)."""
        return self.sample_pair

    @sample.setter
    def sample(self, pair):
        cdef uint8_t[16] head
        cdef uint8_t* end
        if pair is None:
            self.sample_data = NULL
            self.sample_size = 0
            self.sample_pair = self.sample_field = None
            return
        metrics, sampled_at = pair
        # The age follows as the message's last field: one tag byte and four of a float.
        end = wire_uint(head, 0x5A, len(metrics) + 5)
        field = PyBytes_FromStringAndSize(<const char*>head, end - head) + metrics + b"\x3d"
        self.sampled_at = sampled_at
        self.sample_pair = pair
        self.sample_field = field
        self.sample_data = PyBytes_AS_STRING(field)
        self.sample_size = PyBytes_GET_SIZE(field)

    def set_sample_rate(self, double rate):
        """Record this share (0 to 1) of the traces that start here."""
        bound = round(rate * 2**64)
        self.samples_all = bound >= 2**64
        self.sample_bound = 0 if self.samples_all else bound

    def new_span_id(self):
        """The next of this process's span ids, 1 to 2**64 - 1."""
        return infertrace_next_id(&self.ids.span)

    def start_span(
        self,
        model_name=None,
        operation_name="inference",
        *,
        parent=None,
        links=None,
        tags=None,
        attributes=None,
        model_version=None,
        framework=None,
        pipeline_stage=None,
        batch_size=None,
        input_tokens=None,
        output_tokens=None,
        sequence_length=None,
        cache_hit_rate=None,
        queue_depth=None,
        queue_wait_time_ms=None,
        batch_fill_ratio=None,
    ):
        cdef Span span
        cdef Span current_span
        cdef PyObject* current
        cdef object context = None
        cdef uint64_t trace_high, trace_low, parent_id = 0
        cdef uint32_t invalid = 0
        if not self.enabled:
            return noop
        if parent is not None:
            context = context_of(parent)
            if context is None:
                invalid += 1
        if context is None:
            current = current_span_pointer()
            if current is NULL or current == <PyObject*>None:
                trace_low = infertrace_next_id(&self.ids.trace_low)
                if not self.samples_all and trace_low >= self.sample_bound:
                    return unsampled_root
                trace_high = infertrace_next_id(&self.ids.trace_high)
            elif type(<object>current) is Span:
                current_span = <Span>current
                trace_high = current_span.trace_high
                trace_low = current_span.trace_low
                parent_id = current_span.id
            else:
                context = (<object>current).context
        if context is not None:
            if not context.sampled:
                current = current_span_pointer()
                return unsampled_root if current is NULL or current == <PyObject*>None else noop
            trace_high = context.trace_id >> 64
            trace_low = context.trace_id & 0xFFFFFFFFFFFFFFFF
            parent_id = context.span_id

        if model_name is not None and not is_plain_text(model_name):
            model_name, as_given = values.text(model_name)
            invalid += not as_given
        if not (is_plain_text(operation_name) and operation_name):
            operation_name, as_given = values.key(operation_name)
            operation_name = operation_name or "inference"
            invalid += not as_given

        span = Span.__new__(Span)
        span.recorder = self
        span.model = <str>model_name if model_name else None
        span.operation = <str>operation_name
        span.trace_high = trace_high
        span.trace_low = trace_low
        span.id = infertrace_next_id(&self.ids.span)
        span.parent_id = parent_id
        span.invalid_fields = invalid
        span.start = infertrace_monotonic_ns()
        if batch_size is not None:
            span.put_count(batch_size, &span.batch_size, HAS_BATCH_SIZE)
        if input_tokens is not None:
            span.put_count(input_tokens, &span.input_tokens, HAS_INPUT_TOKENS)
        if output_tokens is not None:
            span.put_count(output_tokens, &span.output_tokens, HAS_OUTPUT_TOKENS)
        if queue_depth is not None:
            span.put_count(queue_depth, &span.queue_depth, HAS_QUEUE_DEPTH)
        if queue_wait_time_ms is not None:
            span.put_measure(
                queue_wait_time_ms, &span.queue_wait_time_ms, FLOAT32_MAX, HAS_QUEUE_WAIT_TIME
            )
        if sequence_length is not None:
            span.put_measure(
                sequence_length, &span.sequence_length, FLOAT32_MAX, HAS_SEQUENCE_LENGTH
            )
        if cache_hit_rate is not None:
            span.put_measure(cache_hit_rate, &span.cache_hit_rate, 1.0, HAS_CACHE_HIT_RATE)
        if batch_fill_ratio is not None:
            span.put_measure(batch_fill_ratio, &span.batch_fill_ratio, 1.0, HAS_BATCH_FILL_RATIO)
        if model_version is not None:
            span.set_model_version(model_version)
        if framework is not None:
            span.set_framework(framework)
        if pipeline_stage is not None:
            span.set_pipeline_stage(pipeline_stage)
        if tags is not None or attributes is not None or links is not None:
            fill(span, tags, attributes, links)
        return span

    def take(self):
        """The oldest finished spans, encoded, as one Batch, or None."""
        return self.buffer.take()

    def settle(self, batch, delivered, reason):
        """Close the account of a batch: so many delivered, the rest dropped for `reason`."""
        self.buffer.settle(
            len(batch.payload), batch.span_count, delivered, DROP_REASONS.index(reason)
        )

    def close(self):
        """From now on drop what comes, as `shutdown`; what is held can still be taken."""
        self.buffer.closed = True

    def discard(self):
        """Drop what is held, as `shutdown`; how many spans that were."""
        return self.buffer.discard()

    def counts(self):
        """Produced, delivered, pending, dropped (as DROP_REASONS), invalid fields; one moment."""
        # Read before the first object is made: making one may run a finalizer that records.
        cdef int64_t produced = self.buffer.produced
        cdef int64_t delivered = self.buffer.delivered
        cdef int64_t pending = self.buffer.pending
        cdef int64_t invalid_fields = self.buffer.invalid_fields
        cdef int64_t[<Py_ssize_t>DROP_REASON_COUNT] dropped
        memcpy(dropped, self.buffer.dropped, sizeof(dropped))
        return (
            produced,
            delivered,
            pending,
            tuple([dropped[reason] for reason in range(<Py_ssize_t>DROP_REASON_COUNT)]),
            invalid_fields,
        )

    cdef int put(self, Span span) except -1:
        cdef SpanBuffer buffer = self.buffer
        cdef int full = 0
        cdef Py_ssize_t bound = BASE_BYTES + utf8_size(span.operation)
        if span.model is not None:
            bound += utf8_size(span.model)
        if span.extras is not None:
            bound += extras_bound(span.extras)
        # From here to the commit nothing runs Python code.
        bound += self.service_size + self.sample_size
        buffer.produced += 1
        buffer.invalid_fields += span.invalid_fields
        if buffer.closed:
            buffer.dropped[<int>SHUTDOWN] += 1
        else:
            full = encode_unchecked(self, span, bound)
            if full < 0:  # no memory
                PyErr_Clear()
                buffer.dropped[<int>INVALID] += 1
                full = 0
        if full or not self.awake:
            self.awake = True
            try:
                self.wake()
            except Exception:  # no thread could be started: the next span asks again
                self.awake = False
        return 0


cdef int encode_span(Recorder recorder, Span span, Py_ssize_t bound) except -1:
    """Write a span to the buffer; 1 when that filled a segment."""
    cdef SpanBuffer buffer = recorder.buffer
    cdef Segment filling = buffer.filling
    cdef uint8_t* start = buffer.reserve(bound)
    buffer.commit(put_span(start, span) - start)
    return filling is not None and filling is not buffer.filling


# Called as a function that raises nothing: a try block costs as much as the encoding.
cdef int encode_unchecked(Recorder recorder, Span span, Py_ssize_t bound) noexcept:
    return (<int (*)(Recorder, Span, Py_ssize_t) noexcept>encode_span)(recorder, span, bound)


def monotonic_ns():
    """The clock of the spans, nanoseconds from an arbitrary origin; never goes back."""
    return infertrace_monotonic_ns()
