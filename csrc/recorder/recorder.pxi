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
    cdef infertrace_process_sample process
    cdef bint samples_all
    cdef uint64_t sample_bound
    cdef infertrace_id_streams ids
    cdef infertrace_field_cache operations, models
    cdef int length_size  # bytes that the length of the last span took

    def __dealloc__(self):
        infertrace_clear_fields(self.operations)
        infertrace_clear_fields(self.models)
        infertrace_wakeup_close(&self.process.wakeup)
        infertrace_wakeup_close(&self.process.gpu.wakeup)

    def __init__(self, *, max_buffer_bytes, max_batch_bytes, wake):
        self.buffer = SpanBuffer.__new__(SpanBuffer, max_buffer_bytes, max_batch_bytes)
        self.wake = wake
        self.process.pending_work = &self.buffer.pending_work
        self.enabled = True
        self.samples_all = True
        self.length_size = 1
        self.service_name = ""
        self.sample = None
        self.anchor = time.time_ns() - infertrace_monotonic_ns()
        self.reset()

    def reset(self):
        """Start anew in a forked child, with new ids, an empty buffer and an empty ledger."""
        cdef bytes seed = os.urandom(sizeof(self.ids))
        memcpy(&self.ids, PyBytes_AS_STRING(seed), sizeof(self.ids))
        self.awake = False
        self.buffer.reset()
        infertrace_wakeup_close(&self.process.wakeup)
        infertrace_wakeup_close(&self.process.gpu.wakeup)
        self.process.state = INFERTRACE_NO_SAMPLE
        self.process.gpu.state = self.process.gpu.taken_at = 0

    @property
    def service_name(self):
        return self.service

    @service_name.setter
    def service_name(self, str name not None):
        encoded = name.encode()
        cdef uint8_t[16] head
        cdef uint8_t* end = head
        if encoded:
            end = wire_uint(head, SERVICE_NAME_TAG, len(encoded))
        field = PyBytes_FromStringAndSize(<const char*>head, end - head) + encoded
        self.service = name
        self.service_field = field
        self.service_data = PyBytes_AS_STRING(field)
        self.service_size = PyBytes_GET_SIZE(field)

    @property
    def sample(self):
        """The encoded resource metrics and when they were read (monotonic nanoseconds)."""
        take_sample(self)
        return self.sample_pair

    @sample.setter
    def sample(self, pair):
        cdef uint8_t[16] head
        cdef uint8_t* end
        if pair is None:
            infertrace_compare_exchange(
                &self.process.state, INFERTRACE_NEW_SAMPLE, INFERTRACE_NO_SAMPLE
            )
            self.sample_data = NULL
            self.sample_size = 0
            self.sample_pair = self.sample_field = None
            return
        metrics, sampled_at = pair
        # The age follows as the message's last field: one tag byte and four of a float.
        end = wire_uint(head, RESOURCES_TAG, len(metrics) + 5)
        field = PyBytes_FromStringAndSize(<const char*>head, end - head) + metrics
        field += bytes((SAMPLE_AGE_MS_TAG,))
        self.sampled_at = sampled_at
        self.sample_pair = pair
        self.sample_field = field
        self.sample_data = PyBytes_AS_STRING(field)
        self.sample_size = PyBytes_GET_SIZE(field)

    def set_sample_rate(self, double rate):
        """Record this share (0 to 1) of the traces that start in this process."""
        bound = round(rate * 2**64)
        self.samples_all = bound >= 2**64
        self.sample_bound = 0 if self.samples_all else bound

    def new_span_id(self):
        """A new span id, 1 to 2**64 - 1."""
        return infertrace_next_id(&self.ids.span)

    def record(
        self,
        model_name=None,
        operation_name="inference",
        *,
        start_ns,
        duration_ns,
        parent=None,
        status="OK",
        status_message=None,
        **fields,
    ):
        """As `Tracer.record`, which names the fields."""
        cdef Span span
        started = self.start_span(model_name, operation_name, parent=parent, **fields)
        if type(started) is not Span:
            return started
        span = started
        record_span(self, span, start_ns, duration_ns, status, status_message)
        return span

    def record_step(
        self,
        model_name=None,
        operation_name="step",
        *,
        start_ns,
        duration_ns,
        parent=None,
        status="OK",
        status_message=None,
        **fields,
    ):
        """As `Tracer.record_step`, which names the fields."""
        started = self.start_step(model_name, operation_name, parent=parent, **fields)
        if type(started) is Span:
            record_span(self, started, start_ns, duration_ns, status, status_message)
        else:
            (<NoopSpan>started).end_step(
                type(status) is str and status == "OK",
                nanoseconds(start_ns) + nanoseconds(duration_ns) - self.anchor,
            )
        return started

    def record_batch(
        self,
        model_name=None,
        operation_name="inference",
        *,
        start_ns,
        duration_ns,
        parent=None,
        kind=None,
        **columns,
    ):
        """As `Tracer.record_batch`, which names the columns."""
        views = batch_columns.views(start_ns, duration_ns, columns)
        objects = batch_columns.objects(columns, len(views["start_ns"]))
        # The sampling decision comes later, separately for each row that is a root.
        started = self.begin(
            <PyObject*>model_name, <PyObject*>operation_name, <PyObject*>parent, True
        )
        is_sampled = type(started) is Span
        if not is_sampled:
            if not objects.keys() & ROW_CONTEXTS:
                return 0
            # Rows with a parent, or a trace, of their own may be sampled all the same.
            started = self.begin(
                <PyObject*>model_name, <PyObject*>operation_name, <PyObject*>ANY_PARENT, True
            )
            if type(started) is not Span:
                return 0
        if kind is not None:
            (<Span>started).put_kind(kind)
        return record_rows(self, started, views, objects, parent is not None, is_sampled)

    def take(self, bint partial=True):
        """The oldest finished spans, encoded, as one Batch; None if there are none.

        Without `partial`, None until they fill a batch.
        """
        segment = self.buffer.take(partial)
        return None if segment is None else self.buffer.as_batch(segment)

    def encode_some(self):
        """Does nothing: spans are encoded as they end."""
        return False

    def settle(self, batch, delivered, reason):
        """Close the account of a batch: `delivered` spans, the rest dropped for `reason`."""
        cdef uint64_t last = batch.first_span_sequence + batch.span_count - 1
        self.buffer.settle(
            batch.first_span_sequence,
            len(batch.payload),
            batch.span_count,
            delivered,
            DROP_REASONS.index(reason),
        )
        self.buffer.settle_lent(batch.first_span_sequence, batch.span_count)
        if self.buffer.spooled:
            infertrace_spool_settle(&self.buffer.spool, last)

    def run_delivery_loop(
        self,
        int descriptor,
        bytes producer not None,
        bytes resource not None,
        uint64_t batch_sequence,
        *,
        size_t head,
        size_t size_at,
        double timeout_s,
        double interval_s,
        double stay_s,
    ):
        """Deliver to the sender process on this socket without the GIL, `stay_s` at most.

        Goes on while the collector accepts everything and spans end. Returns the number of the last
        batch; an undelivered batch, or None; and its answer: bytes, an OSError if the sender has
        exited, or None if the batch was not sent. Returns None if the platform lacks this loop.
        `head`, `size_at`: as for `roundtrip`. `producer` and `resource` follow the spans in each
        request; `batch_sequence` is the number of the batch before the first.
        """
        return run_delivery_loop(
            self, producer, resource, batch_sequence,
            infertrace_link(descriptor, head, size_at, <int64_t>(timeout_s * 1e9)),
            <int64_t>(interval_s * 1e9), <int64_t>(stay_s * 1e9),
        )

    def interrupt(self):
        """Make `run_delivery_loop` return; if it is not running, its next call."""
        infertrace_store_release(&self.buffer.delivery.interrupted, 1)
        infertrace_wakeup_notify(&self.buffer.delivery.wakeup)

    def sample_process(self, double interval_s, double duration_s, gpu=None):
        """Take samples of the process without the GIL; False if the platform does not allow that.

        Returns after `duration_s`, or once `stop_sampling` is called. Samples include what
        `sample_gpu` reads on another thread; or what the sender process has read, as `gpu` says:
        the page's descriptor, the reading's place in it (bytes), the generation and the largest
        age (ns). Then it also returns once the page has another generation.
        """
        cdef infertrace_gpu_page page
        cdef const infertrace_gpu_page* shared = NULL
        if gpu is not None:
            page.descriptor, page.place, page.generation, page.max_age_ns = gpu
            shared = &page
        cdef int64_t until = infertrace_monotonic_ns() + <int64_t>(duration_s * 1e9)
        cdef int64_t interval_ns = <int64_t>(interval_s * 1e9)
        if infertrace_wakeup_open(&self.process.wakeup):
            return False
        with nogil:
            infertrace_sample_process(&self.process, interval_ns, until, shared)
        return True

    def sample_gpu(self, double interval_s, double duration_s, bytes identity not None, *queries):
        """Read a GPU without the GIL; returns as `sample_process` does, or when a call fails.

        identity: the device's field of ResourceMetrics, at most 128 bytes. queries: addresses of
        the device and of NVML's functions for its utilization, memory, power and temperature; 0 for
        a value that it does not offer.
        """
        cdef int64_t until = infertrace_monotonic_ns() + <int64_t>(duration_s * 1e9)
        cdef int64_t interval_ns = <int64_t>(interval_s * 1e9)
        cdef infertrace_gpu_sample* gpu = &self.process.gpu
        cdef infertrace_gpu_queries asked
        cdef size_t device, rates, memory, power, temperature
        device, rates, memory, power, temperature = queries
        asked.device, asked.rates, asked.memory = <void*>device, <void*>rates, <void*>memory
        asked.power, asked.temperature = <void*>power, <void*>temperature
        if len(identity) > INFERTRACE_GPU_IDENTITY_ROOM or infertrace_wakeup_open(&gpu.wakeup):
            return
        if not infertrace_compare_exchange(&gpu.state, 0, 1):
            return
        memcpy(gpu.identity, PyBytes_AS_STRING(identity), PyBytes_GET_SIZE(identity))
        gpu.identity_size = PyBytes_GET_SIZE(identity)
        infertrace_store_release(&gpu.state, 0)
        with nogil:
            infertrace_sample_gpu(gpu, &asked, interval_ns, until)

    def stop_sampling(self, bint stopped=True):
        """Make `sample_process` and `sample_gpu` return, now and in future; or allow them again."""
        infertrace_store_release(&self.process.stopped, stopped)
        infertrace_store_release(&self.process.gpu.stopped, stopped)
        infertrace_wakeup_notify(&self.process.wakeup)
        infertrace_wakeup_notify(&self.process.gpu.wakeup)

    def attach_spool(self, file):
        """Write the spans held now, and all later ones, to this SpoolFile too."""
        self.buffer.attach(file.descriptor, file.header_bytes, file.size_bytes)

    def detach_spool(self):
        """Stop writing to the spool, so that its file can be closed."""
        self.buffer.detach()

    def share_memory(self, bytes producer_id not None, bytes resource not None):
        """Have spans lie in memory that a sender process maps too, from the next segment on.

        producer_id: 16 bytes. resource: as `envelope.encode_resource` gives it, 16 KiB at most.
        Where that cannot be, they lie in this process's own.
        """
        self.buffer.share(producer_id, resource)

    @property
    def memory_descriptor(self):
        """The file descriptor of the shared memory, which stays ours; None while there is none."""
        cdef int descriptor = self.buffer.memory.descriptor
        return None if descriptor < 0 else descriptor

    @property
    def packing(self):
        """None: what is here is encoded already."""
        return None

    def sleep(self):
        """Have the next span that ends wake the exporter again."""
        self.awake = False

    def close(self):
        """Drop all later spans, as `shutdown`; those held now can still be taken."""
        self.buffer.closed = True

    def discard(self):
        """Drop the spans held now, as `shutdown`."""
        self.buffer.discard()

    def counts(self):
        """Produced, delivered, pending, dropped (as DROP_REASONS), invalid fields; consistent."""
        count_accepted(self.buffer)
        # Read before making the first object, which may run a finalizer that records.
        cdef infertrace_account* account = infertrace_account_of(self.buffer.memory.header)
        cdef int64_t produced = self.buffer.produced
        cdef int64_t delivered = account.delivered
        cdef int64_t pending = self.buffer.pending()
        cdef int64_t invalid_fields = self.buffer.invalid_fields
        cdef int64_t[<Py_ssize_t>DROP_REASON_COUNT] dropped
        memcpy(dropped, account.dropped, sizeof(dropped))
        return (
            produced,
            delivered,
            pending,
            tuple([dropped[reason] for reason in range(<Py_ssize_t>DROP_REASON_COUNT)]),
            invalid_fields,
        )

    cdef inline object begin(
        self, PyObject* model, PyObject* operation, PyObject* parent, bint samples_root
    ):
        """Start a span, or return one that records nothing; NULL stands for a missing argument.

        samples_root: a trace that starts here is recorded, whatever the sample rate.
        """
        cdef Span span
        cdef PyObject* current
        cdef object context = None
        cdef bint is_remote = False
        cdef uint64_t trace_high, trace_low, parent_id = 0
        cdef uint32_t invalid = 0
        if not self.enabled:
            return noop
        if parent is not NULL and parent != <PyObject*>None:
            context = context_of(<object>parent)
            if context is None:
                invalid += 1
                self.notice("parent", <object>parent, invalid_values.PARENT)
            else:
                is_remote = PyUnicode_CheckExact(<object>parent)
        if context is None:
            current = current_span_pointer()
            if current is NULL or current == <PyObject*>None:
                trace_low = infertrace_next_id(&self.ids.trace_low)
                if not self.samples_all and trace_low >= self.sample_bound and not samples_root:
                    return unsampled_root
                trace_high = infertrace_next_id(&self.ids.trace_high)
            elif type(<object>current) is Span:
                trace_high = (<Span>current).trace_high
                trace_low = (<Span>current).trace_low
                parent_id = (<Span>current).id
            else:
                context = (<object>current).context
        if context is not None:
            if not context.sampled:
                current = current_span_pointer()
                return unsampled_root if current is NULL or current == <PyObject*>None else noop
            trace_high = context.trace_id >> 64
            trace_low = context.trace_id & 0xFFFFFFFFFFFFFFFF
            parent_id = context.span_id

        span = Span.__new__(Span)
        span.call = <vectorcallfunc><void*>call_span
        if model is NULL or model == <PyObject*>None:
            pass
        elif is_plain_text(<object>model):
            span.model = <str>model if len(<str>model) else None
        else:
            text, as_given = values.text(<object>model)
            span.model = text or None
            if not as_given:
                invalid += 1
                self.notice("model_name", <object>model, invalid_values.TEXT)
        if operation is NULL:
            span.operation = DEFAULT_OPERATION
        elif is_plain_text(<object>operation) and len(<str>operation):
            span.operation = <str>operation
        else:
            text, as_given = values.key(<object>operation)
            span.operation = text or DEFAULT_OPERATION
            if not as_given:
                invalid += 1
                self.notice("operation_name", <object>operation, invalid_values.KEY)
        span.recorder = self
        span.trace_high = trace_high
        span.trace_low = trace_low
        span.id = infertrace_next_id(&self.ids.span)
        span.parent_id = parent_id
        span.origin = is_remote
        span.invalid_fields = invalid
        span.start = infertrace_monotonic_ns()
        return span

    cdef int notice(self, str field, object value, str allowed) except -1:
        """Have the exporter log the first value of its kind that was left out or clamped."""
        invalid_values.notice(field, value, allowed, self.wake)
        return 0

    cdef int put(self, Span span) except -1:
        cdef int full = 0
        cdef Py_ssize_t bound = BASE_BYTES + utf8_size(span.operation)
        if span.model is not None:
            bound += utf8_size(span.model)
        if span.extras is not None:
            bound += extras_bound(span)
        # No Python code runs from here to the commit.
        bound += self.service_size + self.sample_size
        self.buffer.produced += 1
        self.buffer.invalid_fields += span.invalid_fields
        if self.buffer.closed:
            self.buffer.drop(SHUTDOWN, 1)
        else:
            full = encode_unchecked(self, span, bound)
            if full < 0:  # no memory
                PyErr_Clear()
                self.buffer.drop(INVALID, 1)
                full = 0
        if full or not self.awake or self.buffer.pending_work:
            self.look_up(full)
        return 0

    def put_encoded(self, bytes record not None):
        """Take a finished span of others, encoded as an entry of a batch, with its tag."""
        cdef int full = 0
        if not self.enabled:
            return
        self.buffer.produced += 1
        if self.buffer.closed:
            self.buffer.drop(SHUTDOWN, 1)
        elif PyBytes_GET_SIZE(record) > MAX_SPAN_BYTES:
            self.buffer.drop(OVERSIZE, 1)
        else:
            try:
                full = copy_span(self, record)
            except MemoryError:
                self.buffer.drop(INVALID, 1)
        if full or not self.awake or self.buffer.pending_work:
            self.look_up(full)

    cdef int look_up(self, bint full) except -1:
        """Do what GIL-free threads left for us, and wake the exporter if a batch is ready."""
        try:
            if self.buffer.pending_work:
                do_pending_work(self)
            if self.awake and (not full or hand_over(self)):
                return 0
            self.awake = True
            self.wake()
        except (RuntimeError, MemoryError):  # no thread could start; the next span tries again
            self.awake = False
        except BaseException:  # raised by a signal handler
            self.awake = False
            raise
        return 0


cdef int copy_span(Recorder recorder, bytes record) except -1:
    """Write an encoded span to the buffer; 1 if that filled a segment."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(record)
    cdef PyObject* filling = <PyObject*>recorder.buffer.filling
    cdef uint8_t* start = recorder.buffer.reserve(size)
    memcpy(start, PyBytes_AS_STRING(record), size)
    recorder.buffer.commit(size)
    return filling != <PyObject*>None and filling != <PyObject*>recorder.buffer.filling


cdef int encode_span(Recorder recorder, Span span, Py_ssize_t bound) except -1:
    """Write a span to the buffer; 1 if that filled a segment."""
    cdef PyObject* filling = <PyObject*>recorder.buffer.filling
    cdef uint8_t* start = recorder.buffer.reserve(bound)
    recorder.buffer.commit(put_span(start, span) - start)
    return filling != <PyObject*>None and filling != <PyObject*>recorder.buffer.filling


cdef str DEFAULT_OPERATION = "inference"


# By some bits of a name's address, which keyword had such a name last: however many keywords there
# are, most are found at once.
cdef unsigned char keyword_hints[256]


cdef enum:
    UNKNOWN_KEYWORD = 255


cdef inline int keyword_of(object name) except -1:
    cdef int keyword
    cdef uintptr_t address = <uintptr_t><PyObject*>name
    cdef unsigned char* hint = &keyword_hints[(address >> 4 ^ address >> 12) & 255]
    # The interpreter interns the names in a call: most are found by identity.
    if <PyObject*>name == PyTuple_GET_ITEM(START_KEYWORDS, hint[0]):
        return hint[0]
    keyword = find_keyword(name, hint)
    if keyword == UNKNOWN_KEYWORD:
        raise TypeError(f"start_span() got an unexpected keyword argument {name!r}")
    return keyword


cdef int find_keyword(object name, unsigned char* hint) except -1:
    """The keyword, remembered as the one for `hint`; UNKNOWN_KEYWORD if it is none."""
    cdef int keyword
    for keyword in range(<int>START_KEYWORD_COUNT):
        if <PyObject*>name == PyTuple_GET_ITEM(START_KEYWORDS, keyword):
            hint[0] = <unsigned char>keyword
            return keyword
    for keyword in range(<int>START_KEYWORD_COUNT):
        if name == START_KEYWORDS[keyword]:
            return keyword
    return UNKNOWN_KEYWORD


# In C, this has the interpreter's fast calling convention: it returns a new reference, or NULL
# with an exception.
cdef object start_span(
    Recorder self, PyObject** arguments, Py_ssize_t positional, PyObject* names
):
    if names is NULL and positional <= 2:
        return self.begin(
            arguments[0] if positional > 0 else NULL,
            arguments[1] if positional > 1 else NULL,
            NULL,
            False,
        )
    return start_span_with_keywords(
        self, arguments, positional, () if names is NULL else <tuple>names
    )


cdef object start_span_with_keywords(
    Recorder self, PyObject** arguments, Py_ssize_t positional, tuple names
):
    cdef PyObject* given[<int>START_KEYWORD_COUNT]
    cdef int keywords[<int>START_KEYWORD_COUNT]
    cdef Py_ssize_t number
    cdef int keyword
    cdef object span
    if positional > 2:
        raise TypeError(
            f"start_span() takes at most 2 positional arguments ({positional} given)"
        )
    # The others are only looked at where they were given.
    memset(given, 0, <int>KEYWORD_MODEL_VERSION * sizeof(given[0]))
    for number in range(positional):
        given[number] = arguments[number]
    for number in range(len(names)):
        keyword = keyword_of(<object>PyTuple_GET_ITEM(names, number))
        if keyword < positional:
            raise TypeError(
                f"start_span() got multiple values for argument {START_KEYWORDS[keyword]!r}"
            )
        given[keyword] = arguments[positional + number]
        keywords[number] = keyword
    span = self.begin(
        given[<int>KEYWORD_MODEL_NAME],
        given[<int>KEYWORD_OPERATION_NAME],
        given[<int>KEYWORD_PARENT],
        False,
    )
    if type(span) is Span:
        set_fields(<Span>span, given, keywords, len(names))
    return span


cdef object start_step(
    Recorder self, PyObject** arguments, Py_ssize_t positional, PyObject* names
):
    """As start_span_with_keywords(), with the keywords that only a step has."""
    cdef PyObject* given[<int>START_KEYWORD_COUNT + <int>STEP_KEYWORD_COUNT]
    cdef int keywords[<int>START_KEYWORD_COUNT]
    cdef PyObject* operation
    cdef Py_ssize_t number, count = 0, named = 0 if names is NULL else len(<tuple>names)
    cdef int keyword
    if positional > 2:
        raise TypeError(
            f"start_step() takes at most 2 positional arguments ({positional} given)"
        )
    memset(given, 0, sizeof(given))
    for number in range(positional):
        given[number] = arguments[number]
    for number in range(named):
        keyword = step_keyword_of(<object>PyTuple_GET_ITEM(<tuple>names, number))
        if keyword < positional:
            raise TypeError(
                f"start_step() got multiple values for argument {START_KEYWORDS[keyword]!r}"
            )
        given[keyword] = arguments[positional + number]
        if keyword < START_KEYWORD_COUNT:
            keywords[count] = keyword
            count += 1
    prefill = object_or_none(given[<int>KEYWORD_PREFILL])
    decode = object_or_none(given[<int>KEYWORD_DECODE])
    operation = given[<int>KEYWORD_OPERATION_NAME]
    started = self.begin(
        given[<int>KEYWORD_MODEL_NAME],
        <PyObject*>STEP_OPERATION if operation is NULL else operation,
        given[<int>KEYWORD_PARENT],
        False,
    )
    if type(started) is Span:
        set_fields(<Span>started, given, keywords, count)
        begin_step(
            <Span>started, prefill, decode, object_or_none(given[<int>KEYWORD_CAPACITY])
        )
    elif self.enabled and (prefill is not None or decode is not None):
        engine = object_or_none(given[<int>KEYWORD_ENGINE])
        return unrecorded_step(
            prefill, decode, <str>engine if type(engine) is str and engine else DEFAULT_ENGINE
        )
    return started


cdef tuple STEP_KEYWORDS = ("prefill", "decode", "capacity")

cdef enum:
    KEYWORD_PREFILL = START_KEYWORD_COUNT
    KEYWORD_DECODE
    KEYWORD_CAPACITY
    STEP_KEYWORD_COUNT = 3


cdef inline int step_keyword_of(object name) except -1:
    """As keyword_of(); those that only a step has come after the others."""
    cdef int keyword
    for keyword in range(<int>STEP_KEYWORD_COUNT):
        if <PyObject*>name == PyTuple_GET_ITEM(STEP_KEYWORDS, keyword):
            return <int>START_KEYWORD_COUNT + keyword
    return find_step_keyword(name)


cdef int find_step_keyword(object name) except -1:
    cdef unsigned char ignored = 0
    cdef int keyword = find_keyword(name, &ignored)
    if keyword != UNKNOWN_KEYWORD:
        return keyword
    if name in STEP_KEYWORDS:
        return <int>START_KEYWORD_COUNT + STEP_KEYWORDS.index(name)
    raise TypeError(f"start_step() got an unexpected keyword argument {name!r}")


cdef inline object object_or_none(PyObject* value):
    return None if value is NULL else <object>value


cdef class TracerBase:
    """The base class of `Tracer`, with start_span() as a method of its type.

    Looking up a method of the recorder through an attribute would show in the cost of a span.
    """

    cdef public Recorder _recorder

    @staticmethod
    def add_start_step(type tracer, str documentation not None):
        """The same for `start_step`."""
        global start_step_of_tracer_documentation
        start_step_of_tracer_documentation = START_STEP_SIGNATURE + documentation.encode()
        infertrace_add_method(
            tracer,
            "start_step",
            <infertrace_fast_method><void*>start_step_of_tracer,
            start_step_of_tracer_documentation,
            &start_step_of_tracer_definition,
        )

    @staticmethod
    def add_start_span(type tracer, str documentation not None):
        """Add `start_span` to the class itself: CPython calls an inherited method more slowly."""
        global start_span_of_tracer_documentation
        start_span_of_tracer_documentation = START_SPAN_SIGNATURE + documentation.encode()
        infertrace_add_method(
            tracer,
            "start_span",
            <infertrace_fast_method><void*>start_span_of_tracer,
            start_span_of_tracer_documentation,
            &start_span_of_tracer_definition,
        )


# Kept alive because the method's definition points into it.
cdef bytes start_span_of_tracer_documentation = b""
cdef bytes start_step_of_tracer_documentation = b""


cdef object start_span_of_tracer(
    TracerBase self, PyObject** arguments, Py_ssize_t positional, PyObject* names
):
    if self._recorder is None:
        raise RuntimeError("the tracer was not initialized")
    return start_span(self._recorder, arguments, positional, names)


cdef object start_step_of_tracer(
    TracerBase self, PyObject** arguments, Py_ssize_t positional, PyObject* names
):
    if self._recorder is None:
        raise RuntimeError("the tracer was not initialized")
    return start_step(self._recorder, arguments, positional, names)


cdef PyMethodDef start_step_definition, start_step_of_tracer_definition
infertrace_add_method(
    Recorder,
    "start_step",
    <infertrace_fast_method><void*>start_step,
    START_STEP_SIGNATURE,
    &start_step_definition,
)
cdef PyMethodDef start_span_definition, start_span_of_tracer_definition
infertrace_add_method(
    Recorder,
    "start_span",
    <infertrace_fast_method><void*>start_span,
    START_SPAN_SIGNATURE,
    &start_span_definition,
)


# Declared noexcept and checked by hand: a try block costs as much as the encoding.
cdef int encode_unchecked(Recorder recorder, Span span, Py_ssize_t bound) noexcept:
    return (<int (*)(Recorder, Span, Py_ssize_t) noexcept>encode_span)(recorder, span, bound)


def monotonic_ns():
    """The spans' clock: nanoseconds from an arbitrary origin; never goes back."""
    return infertrace_monotonic_ns()


def token_ns():
    """The spans' clock as tokens read it: within 50 us of monotonic_ns(), and cheaper."""
    return infertrace_token_ns()


cdef bint keeps_time_by_ticks() except -1:
    """Whether the kernel says that the processor's counter is a clock."""
    try:
        with open(CLOCK_SOURCE) as file:
            return file.read().strip() == "tsc"
    except OSError:
        return False


cdef str CLOCK_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
if keeps_time_by_ticks():
    infertrace_trust_ticks()
