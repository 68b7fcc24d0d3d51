# The span: the compiled twin of infertrace.recording.pure.Span.

cdef enum:
    STATUS_OK
    STATUS_ERROR
    STATUS_CANCELLED

# Where a span comes from, in one byte, so that most spans need one look: this bit, and above it
# OTLP's number of its kind, if that was said.
cdef enum:
    PARENT_IS_REMOTE = 1

cdef dict KINDS = values.KINDS


# Members that few spans need; the others neither set nor clear them.
@cython.final
@cython.internal
@cython.no_gc
@cython.freelist(64)
cdef class Extras:
    cdef str status_message
    cdef dict tags, attributes
    cdef list events, links
    cdef Serving serving

    # generated: text_members
    cdef str model_version, framework, pipeline_stage, request_id, finish_reason

    cdef inline bint has_inference_text(self):
        return bool(
            self.model_version
            or self.framework
            or self.pipeline_stage
            or self.request_id
            or self.finish_reason
        )

    cdef inline Py_ssize_t inference_text_bytes(self) except -1:
        cdef Py_ssize_t size = 0
        if self.model_version is not None:
            size += utf8_size(self.model_version)
        if self.framework is not None:
            size += utf8_size(self.framework)
        if self.pipeline_stage is not None:
            size += utf8_size(self.pipeline_stage)
        if self.request_id is not None:
            size += utf8_size(self.request_id)
        if self.finish_reason is not None:
            size += utf8_size(self.finish_reason)
        return size
    # end of what is generated


# The GC does not track a span: it holds texts, numbers, its recorder and the span around it. None
# of these can lead back to it, since only its first entry decides which span is around it. A step
# holds its members as well, until it ends.
@cython.final
@cython.freelist(256)
@cython.no_gc
cdef class Span:
    """One operation. `infertrace.Span` documents the methods."""

    cdef vectorcallfunc call
    cdef object previous  # next to `call`: make_blocks() tells C its offset from there
    # What a step looks at in each of its members comes first, in one line of the cache.
    cdef Extras extras
    cdef PyObject* own_serving  # that of the extras, or NULL
    cdef uint32_t present
    cdef bint ended, entered
    cdef uint32_t invalid_fields
    cdef uint8_t status, origin
    cdef Recorder recorder
    cdef str model, operation
    cdef uint64_t trace_high, trace_low, id, parent_id
    cdef int64_t start, duration

    # generated: span_fields
    cdef int32_t batch_size, input_tokens, output_tokens, queue_depth, cached_input_tokens
    cdef int32_t reasoning_output_tokens
    cdef float sequence_length, cache_hit_rate, queue_wait_time_ms, batch_fill_ratio
    cdef float time_to_first_token_ms, inter_token_latency_ms

    def set_model_version(self, version):
        text = self.cleaned_text("model_version", version)
        if text is not None:
            self.more().model_version = text

    def set_batch_size(self, size):
        self.put_count("batch_size", size, &self.batch_size, HAS_BATCH_SIZE)

    def set_tokens(self, input=None, output=None):
        if input is not None:
            self.put_count("input_tokens", input, &self.input_tokens, HAS_INPUT_TOKENS)
        if output is not None:
            self.put_count("output_tokens", output, &self.output_tokens, HAS_OUTPUT_TOKENS)

    def set_framework(self, framework):
        text = self.cleaned_text("framework", framework)
        if text is not None:
            self.more().framework = text

    def set_sequence_length(self, length):
        self.put_measure(
            "sequence_length",
            length,
            &self.sequence_length,
            FLOAT32_MAX,
            HAS_SEQUENCE_LENGTH,
        )

    def set_cache_hit_rate(self, rate):
        self.put_measure("cache_hit_rate", rate, &self.cache_hit_rate, 1.0, HAS_CACHE_HIT_RATE)

    def set_pipeline_stage(self, stage):
        text = self.cleaned_text("pipeline_stage", stage)
        if text is not None:
            self.more().pipeline_stage = text

    def set_queue(self, depth=None, wait_time_ms=None):
        if depth is not None:
            self.put_count("queue_depth", depth, &self.queue_depth, HAS_QUEUE_DEPTH)
        if wait_time_ms is not None:
            self.put_measure(
                "queue_wait_time_ms",
                wait_time_ms,
                &self.queue_wait_time_ms,
                FLOAT32_MAX,
                HAS_QUEUE_WAIT_TIME_MS,
            )

    def set_batch_fill_ratio(self, ratio):
        self.put_measure(
            "batch_fill_ratio",
            ratio,
            &self.batch_fill_ratio,
            1.0,
            HAS_BATCH_FILL_RATIO,
        )

    def set_streaming(self, time_to_first_token_ms=None, inter_token_latency_ms=None):
        if time_to_first_token_ms is not None:
            self.put_measure(
                "time_to_first_token_ms",
                time_to_first_token_ms,
                &self.time_to_first_token_ms,
                FLOAT32_MAX,
                HAS_TIME_TO_FIRST_TOKEN_MS,
            )
        if inter_token_latency_ms is not None:
            self.put_measure(
                "inter_token_latency_ms",
                inter_token_latency_ms,
                &self.inter_token_latency_ms,
                FLOAT32_MAX,
                HAS_INTER_TOKEN_LATENCY_MS,
            )

    def set_request_id(self, request_id):
        text = self.cleaned_text("request_id", request_id)
        if text is not None:
            self.more().request_id = text

    def set_finish_reason(self, reason):
        text = self.cleaned_text("finish_reason", reason)
        if text is not None:
            self.more().finish_reason = text

    def set_token_details(self, cached_input=None, reasoning_output=None):
        if cached_input is not None:
            self.put_count(
                "cached_input_tokens",
                cached_input,
                &self.cached_input_tokens,
                HAS_CACHED_INPUT_TOKENS,
            )
        if reasoning_output is not None:
            self.put_count(
                "reasoning_output_tokens",
                reasoning_output,
                &self.reasoning_output_tokens,
                HAS_REASONING_OUTPUT_TOKENS,
            )

    def set_request(
        self, preemption_count=None, scheduled_after_ms=None, max_inter_token_latency_ms=None,
        token_intervals=None, first_step=None, last_step=None, step_count=None, membership=None,
    ):
        if preemption_count is not None:
            self.put_count(
                "preemption_count",
                preemption_count,
                &self.serving().preemption_count,
                HAS_PREEMPTION_COUNT,
            )
        if scheduled_after_ms is not None:
            self.put_measure(
                "scheduled_after_ms",
                scheduled_after_ms,
                &self.serving().scheduled_after_ms,
                FLOAT32_MAX,
                HAS_SCHEDULED_AFTER_MS,
            )
        if max_inter_token_latency_ms is not None:
            self.put_measure(
                "max_inter_token_latency_ms",
                max_inter_token_latency_ms,
                &self.serving().max_inter_token_latency_ms,
                FLOAT32_MAX,
                HAS_MAX_INTER_TOKEN_LATENCY_MS,
            )
        if token_intervals is not None:
            self.put_intervals("token_intervals", token_intervals, HAS_TOKEN_INTERVALS)
        if first_step is not None:
            self.put_ordinal("first_step", first_step, &self.serving().first_step, HAS_FIRST_STEP)
        if last_step is not None:
            self.put_ordinal("last_step", last_step, &self.serving().last_step, HAS_LAST_STEP)
        if step_count is not None:
            self.put_count("step_count", step_count, &self.serving().step_count, HAS_STEP_COUNT)
        if membership is not None:
            text = self.cleaned_text("membership", membership)
            if text is not None:
                self.serving().membership = text
                self.set_present(HAS_MEMBERSHIP, bool(text))

    def set_engine(self, engine):
        text = self.cleaned_text("engine", engine)
        if text is not None:
            self.serving().engine = text
            self.set_present(HAS_ENGINE, bool(text))

    def set_step(self, index=None, prefill_tokens=None, decode_tokens=None, kv_cache_usage=None):
        if index is not None:
            self.put_ordinal("step_index", index, &self.serving().step_index, HAS_STEP_INDEX)
        if prefill_tokens is not None:
            self.put_count(
                "prefill_tokens",
                prefill_tokens,
                &self.serving().prefill_tokens,
                HAS_PREFILL_TOKENS,
            )
        if decode_tokens is not None:
            self.put_count(
                "decode_tokens",
                decode_tokens,
                &self.serving().decode_tokens,
                HAS_DECODE_TOKENS,
            )
        if kv_cache_usage is not None:
            self.put_measure(
                "kv_cache_usage",
                kv_cache_usage,
                &self.serving().kv_cache_usage,
                1.0,
                HAS_KV_CACHE_USAGE,
            )
    # end of what is generated

    @property
    def trace_id(self):
        return f"{self.trace_high:016x}{self.trace_low:016x}"

    @property
    def span_id(self):
        return f"{self.id:016x}"

    @property
    def parent_span_id(self):
        return f"{self.parent_id:016x}" if self.parent_id else None

    @property
    def traceparent(self):
        return f"00-{self.trace_high:016x}{self.trace_low:016x}-{self.id:016x}-01"

    @property
    def is_recording(self):
        return not self.ended

    @property
    def context(self):
        return TraceContext((<object>self.trace_high << 64) | self.trace_low, self.id, True)

    @property
    def propagates(self):
        return True

    def set_tag(self, key, text):
        cdef Extras extras = self.more()
        if extras.tags is None:
            extras.tags = {}
        if is_plain_text(text):
            self.put_entry("tag", extras.tags, key, text, text, True)
        else:
            kept, as_given = values.text(text)
            self.put_entry("tag", extras.tags, key, text, kept, as_given)

    def set_attribute(self, key, value):
        cdef Extras extras = self.more()
        if extras.attributes is None:
            extras.attributes = {}
        if is_plain_scalar(value):
            self.put_entry("attribute", extras.attributes, key, value, value, True)
        else:
            kept, as_given = values.scalar(value)
            self.put_entry("attribute", extras.attributes, key, value, kept, as_given)

    def add_event(self, name, attributes=None):
        cdef Extras extras = self.more()
        title, as_given = (name, True) if is_plain_text(name) and name else values.key(name)
        kept, invalid = (None, 0) if attributes is None else self.entries(attributes)
        if extras.events is None:
            extras.events = []
        if title is None:
            return self.refuse("event", name, invalid_values.KEY)
        if not self.has_room("event", name, len(extras.events)):
            return
        if not as_given:
            self.refuse("event", name, invalid_values.KEY)
        self.count_invalid(invalid)
        now = infertrace_monotonic_ns() + self.recorder.anchor
        extras.events.append((now, title, kept))

    def add_link(self, other, attributes=None):
        cdef Extras extras = self.more()
        context = context_of(other)
        kept, invalid = self.entries(attributes)
        if extras.links is None:
            extras.links = []
        if context is None or not context.span_id:
            return self.refuse("link", other, invalid_values.LINK)
        if not self.has_room("link", other, len(extras.links)):
            return
        self.count_invalid(invalid)
        extras.links.append(
            (
                context.trace_id >> 64,
                context.trace_id & 0xFFFFFFFFFFFFFFFF,
                context.span_id,
                kept,
            )
        )

    def record_exception(self, error):
        if not issubclass(type(error), BaseException):
            return self.refuse("record_exception", error, invalid_values.EXCEPTION)
        self.add_event("exception", failure.exception_attributes(error))

    def set_status(self, status, message=None):
        known = status if is_plain_text(status) else values.text(status)[0]
        if known not in ("OK", "ERROR", "CANCELLED"):
            return self.refuse("status", status, invalid_values.STATUS)
        if self.ended:
            return self.refuse("status", status, invalid_values.BEFORE_THE_END)
        self.status = (
            STATUS_OK if known == "OK" else STATUS_ERROR if known == "ERROR" else STATUS_CANCELLED
        )
        if message is not None:
            text, as_given = values.text(message)
            if not as_given:
                self.refuse("status_message", message, invalid_values.TEXT)
            self.more().status_message = text

    def set_operation_name(self, name):
        text, as_given = values.key(name)
        if not as_given:
            self.refuse("operation_name", name, invalid_values.KEY)
        if text is None:
            return
        if self.ended:
            self.refuse("operation_name", name, invalid_values.BEFORE_THE_END)
        else:
            self.operation = text

    def activate(self):
        return Activation(self, exchange_current, restore_current)

    def scheduled(self):
        cdef int64_t now = infertrace_monotonic_ns()
        cdef Serving own
        if self.ended:
            return self.refuse("scheduled", None, invalid_values.BEFORE_THE_END)
        if not self.present & HAS_SCHEDULED_AFTER_MS:
            own = self.serving()
            own.scheduled_after_ms = <float>(<double>(now - self.start) / 1e6)
            self.present |= HAS_SCHEDULED_AFTER_MS

    def stream(self, iterable):
        return stream_of(self, iterable)

    @property
    def token_count(self):
        return (<Serving>self.own_serving).times.tokens if self.own_serving else 0

    def end(self):
        if not self.ended:
            self.forget_ended()
            self.finish()

    async def __aenter__(self):
        self.enter()
        return self

    async def __aexit__(self, kind, error, traceback):
        self.leave(error)

    cdef inline int enter(self) except -1:
        cdef PyObject* cell
        if self.entered:
            return self.refuse_second_entry()
        self.entered = True
        cell = current_cell()
        if cell is not NULL and (<Cell>cell).span is not None:
            self.previous = live((<Cell>cell).span)
        return make_current(cell, self)

    cdef int refuse_second_entry(self) except -1:
        # A second entry leaves the current span alone: remembering that as the parent could close a
        # cycle, and restoring another context's span on exit would mix up traces.
        self.refuse("with", self, invalid_values.ONE_BLOCK)
        return 0

    cdef inline int leave(self, object error) except -1:
        cdef PyObject* cell = current_cell()
        if self.previous is not None:
            self.forget_ended()
        if cell is not NULL and (<Cell>cell).span is self:
            if self.previous is None:
                make_current(cell, None)
            else:
                make_current(cell, self.previous)
        if self.ended:
            return 0
        if error is not None:
            return self.finish_with(error)
        return self.finish()

    cdef inline int forget_ended(self) except -1:
        """Replace an ended `previous`: keeping it would grow a chain of ended spans."""
        if type(self.previous) is Span and (<Span>self.previous).ended:
            self.previous = live(self.previous)
        return 0

    cdef int finish_with(self, error) except -1:
        try:
            self.fail(error)
        except Exception:  # no stack or memory is left to describe it; the span ends anyway
            self.invalid_fields += 1
        finally:
            self.finish()
        return 0

    cdef int fail(self, error) except -1:
        cdef Extras extras
        self.status = STATUS_ERROR
        if failure.status_of(type(error)) != "ERROR":
            self.status = STATUS_CANCELLED
        extras = self.more()
        extras.status_message = failure.message_of(error)
        if self.status == STATUS_ERROR:
            self.record_exception(error)
        return 0

    cdef inline int finish(self) except -1:
        self.duration = infertrace_monotonic_ns() - self.start
        self.ended = True
        return self.recorder.put(self)

    cdef inline Extras more(self):
        if self.extras is None:
            self.extras = Extras.__new__(Extras)
        return self.extras

    cdef inline Serving serving(self):
        cdef Extras extras = self.more()
        if extras.serving is None:
            extras.serving = Serving.__new__(Serving)
            self.own_serving = <PyObject*>extras.serving
        return extras.serving

    cdef int count_invalid(self, Py_ssize_t fields) except -1:
        if self.ended:
            self.recorder.buffer.invalid_fields += fields
        else:
            self.invalid_fields += <uint32_t>fields
        return 0

    cdef object refuse(self, str field, object value, str allowed):
        """Count a value that was left out or clamped, and have the first of its kind logged."""
        self.count_invalid(1)
        invalid_values.notice(field, value, allowed, self.recorder.wake)

    cdef object entries(self, object attributes):
        """The valid attributes of an event or link, and how many were changed or left out."""
        return values.entries(attributes, self.recorder.wake)

    cdef bint has_room(self, str field, object value, Py_ssize_t count) except -1:
        if self.ended or count >= MAX_ENTRIES:
            self.refuse(
                field,
                value,
                invalid_values.BEFORE_THE_END if self.ended else invalid_values.ENTRIES,
            )
            return False
        return True

    cdef inline int put_count(
        self, str name, object value, int32_t* field, uint32_t presence
    ) except -1:
        if not self.ended and infertrace_as_count(value, field):
            self.present |= presence
            return 0
        return self.judge_count(name, value, field, presence)

    cdef int judge_count(
        self, str name, object value, int32_t* field, uint32_t presence
    ) except -1:
        kept, as_given = values.count(value)
        if not as_given or self.ended:
            self.refuse(
                name, value, invalid_values.COUNT if not as_given else invalid_values.BEFORE_THE_END
            )
        if kept is not None and not self.ended:
            field[0] = kept
            self.present |= presence
        return 0

    cdef inline int put_measure(
        self, str name, object value, float* field, double upper, uint32_t presence
    ) except -1:
        cdef double number
        if PyFloat_CheckExact(value) and not self.ended:
            number = PyFloat_AS_DOUBLE(value)
            if 0.0 <= number <= upper:
                field[0] = <float>number
                self.present |= presence
                return 0
        return self.judge_measure(name, value, field, upper, presence)

    cdef int judge_measure(
        self, str name, object value, float* field, double upper, uint32_t presence
    ) except -1:
        kept, as_given = values.measure(value, upper)
        if not as_given or self.ended:
            self.refuse(
                name,
                value,
                invalid_values.measure(upper) if not as_given else invalid_values.BEFORE_THE_END,
            )
        if kept is not None and not self.ended:
            field[0] = <float><double>kept
            self.present |= presence
        return 0

    cdef void set_present(self, uint32_t presence, bint is_present) noexcept:
        if is_present:
            self.present |= presence
        else:
            self.present &= ~presence

    cdef int put_ordinal(
        self, str name, object value, int64_t* field, uint32_t presence
    ) except -1:
        kept, as_given = values.ordinal(value)
        if not as_given or self.ended:
            allowed = invalid_values.BEFORE_THE_END if as_given else invalid_values.ORDINAL
            self.refuse(name, value, allowed)
        if kept is not None and not self.ended:
            field[0] = kept
            self.present |= presence
        return 0

    cdef int put_kind(self, object value) except -1:
        cdef int kind
        if PyUnicode_CheckExact(value) and value in KINDS:
            kind = KINDS[value]
            self.origin |= <uint8_t>(kind << 1)
        else:
            self.refuse("kind", value, invalid_values.KIND)
        return 0

    cdef int put_intervals(self, str name, object value, uint32_t presence) except -1:
        kept = values.intervals(value)
        if kept is None or self.ended:
            allowed = invalid_values.INTERVALS if kept is None else invalid_values.BEFORE_THE_END
            self.refuse(name, value, allowed)
            return 0
        keep_intervals(self.serving(), kept)
        self.present |= presence
        return 0

    cdef str cleaned_text(self, str name, object value):
        """The text to record, or None; counts a value that was changed or left out."""
        if not self.ended and is_plain_text(value):
            return <str>value
        text, as_given = values.text(value)
        if not as_given or self.ended:
            self.refuse(
                name, value, invalid_values.TEXT if not as_given else invalid_values.BEFORE_THE_END
            )
        return None if self.ended else <str>text

    cdef int put_entry(
        self, str name, dict entries, object key, object value, object kept, bint as_given
    ) except -1:
        cdef object used = key
        cdef str allowed = None
        if not as_given:
            allowed = invalid_values.TEXT if name == "tag" else invalid_values.SCALAR
        if not (is_plain_text(key) and key):
            used, key_as_given = values.key(key)
            if not key_as_given:
                name, value, allowed = name + " key", key, invalid_values.KEY
        if used is not None and kept is not None:
            if self.ended:
                allowed, kept = invalid_values.BEFORE_THE_END, None
            elif len(entries) >= MAX_ENTRIES and used not in entries:
                allowed, kept = invalid_values.ENTRIES, None
            else:
                entries[used] = kept
        if allowed is not None:
            self.count_invalid(1)
            invalid_values.notice(name, value, allowed, self.recorder.wake, key)
        return 0


@cython.final
@cython.internal
@cython.trashcan(True)
cdef class NoopSpan:
    """A span that records nothing: the tracer is off, or the trace is not sampled.

    Instances are shared. The one with `root` is the root of every trace that is not sampled, and
    is current inside its block, so that spans started there are not sampled either. If another
    span is current around that block, entering makes an instance for the block that remembers
    that span.
    """

    cdef vectorcallfunc call
    cdef bint root
    cdef object previous
    cdef Serving step  # of a step that is not recorded, and whose members may be

    @property
    def trace_id(self):
        return "0" * 32

    @property
    def span_id(self):
        return "0" * 16

    @property
    def parent_span_id(self):
        return None

    @property
    def traceparent(self):
        return f"00-{'0' * 32}-{'0' * 16}-00"

    @property
    def is_recording(self):
        return False

    @property
    def context(self):
        return TraceContext(0, 0, False)

    @property
    def propagates(self):
        return self.root

    # generated: noop_setters
    def set_model_version(self, version):
        pass

    def set_batch_size(self, size):
        pass

    def set_tokens(self, input=None, output=None):
        pass

    def set_framework(self, framework):
        pass

    def set_sequence_length(self, length):
        pass

    def set_cache_hit_rate(self, rate):
        pass

    def set_pipeline_stage(self, stage):
        pass

    def set_queue(self, depth=None, wait_time_ms=None):
        pass

    def set_batch_fill_ratio(self, ratio):
        pass

    def set_streaming(self, time_to_first_token_ms=None, inter_token_latency_ms=None):
        pass

    def set_request_id(self, request_id):
        pass

    def set_finish_reason(self, reason):
        pass

    def set_token_details(self, cached_input=None, reasoning_output=None):
        pass

    def set_request(
        self, preemption_count=None, scheduled_after_ms=None, max_inter_token_latency_ms=None,
        token_intervals=None, first_step=None, last_step=None, step_count=None, membership=None,
    ):
        pass

    def set_engine(self, engine):
        pass

    def set_step(self, index=None, prefill_tokens=None, decode_tokens=None, kv_cache_usage=None):
        pass
    # end of what is generated

    def set_tag(self, key, text):
        pass

    def set_attribute(self, key, value):
        pass

    def add_event(self, name, attributes=None):
        pass

    def add_link(self, other, attributes=None):
        pass

    def record_exception(self, error):
        pass

    def set_status(self, status, message=None):
        pass

    def set_operation_name(self, name):
        pass

    def activate(self):
        return Activation(self, exchange_current, restore_current)

    def scheduled(self):
        pass

    def stream(self, iterable):
        return streams.untimed(iterable)

    @property
    def token_count(self):
        return 0

    def end(self):
        if self.step is not None:
            self.end_step(True, infertrace_monotonic_ns())

    async def __aenter__(self):
        self.enter()
        return self

    async def __aexit__(self, kind, error, traceback):
        self.leave()
        if self.step is not None:
            self.end_step(error is None, infertrace_monotonic_ns())

    cdef int end_step(self, bint worked, int64_t now) except -1:
        cdef Serving step = self.step
        cdef Sums ignored
        if step is not None:
            self.step = None
            end_step(step, now, worked, &ignored)
        return 0

    cdef inline int enter(self) except -1:
        cdef PyObject* cell
        if self.root:
            cell = current_cell()
            if cell is NULL or (<Cell>cell).span is None:
                make_current(cell, self)
            else:
                make_current(cell, new_noop(True, live((<Cell>cell).span)))
        return 0

    cdef inline int leave(self) except -1:
        cdef PyObject* cell
        if self.root:
            cell = current_cell()
            if cell is not NULL and type((<Cell>cell).span) is NoopSpan:
                make_current(cell, live((<NoopSpan>(<Cell>cell).span).previous))
        return 0


# The functions that a `with` statement calls: see block_method.h.
cdef object call_span(Span self, PyObject** arguments, size_t count, PyObject* names):
    cdef Py_ssize_t given = PyVectorcall_NARGS(count)
    if given == 0 and names is NULL:
        self.enter()
        return self
    if given == 3 and names is NULL:
        self.leave(<object>arguments[1])
        return None
    raise TypeError("__enter__() takes no arguments, __exit__() takes three")


cdef object call_noop(NoopSpan self, PyObject** arguments, size_t count, PyObject* names):
    cdef Py_ssize_t given = PyVectorcall_NARGS(count)
    if given == 0 and names is NULL:
        self.enter()
        return self
    if given == 3 and names is NULL:
        self.leave()
        return None
    raise TypeError("__enter__() takes no arguments, __exit__() takes three")


cdef int make_blocks() except -1:
    cdef Span span = Span.__new__(Span)
    cdef NoopSpan noop_span = NoopSpan.__new__(NoopSpan)
    infertrace_make_block(Span, <char*>&span.call - <char*><PyObject*>span)
    infertrace_make_block(NoopSpan, <char*>&noop_span.call - <char*><PyObject*>noop_span)
    infertrace_unlink_before_release(
        Span, <char*>&span.call + sizeof(span.call) - <char*><PyObject*>span
    )
    infertrace_refuse_new(Span)
    infertrace_refuse_new(NoopSpan)
    return 0


make_blocks()


cdef NoopSpan new_noop(bint root, object previous):
    cdef NoopSpan span = NoopSpan.__new__(NoopSpan)
    span.root = root
    span.previous = previous
    span.call = <vectorcallfunc><void*>call_noop
    return span


NOOP = new_noop(False, None)
cdef NoopSpan noop = NOOP
cdef NoopSpan unsampled_root = new_noop(True, None)


cdef inline object live(object span):
    """The innermost enclosing span that has not ended (blocks may exit out of order)."""
    if type(span) is Span and (<Span>span).ended:
        return live_around(<Span>span)
    return span


cdef object live_around(Span ended):
    cdef object span = ended.previous, following
    while type(span) is Span and (<Span>span).ended:
        span = (<Span>span).previous
    # Path compression, so that no chain of ended spans is walked twice.
    while ended.previous is not span:
        following = ended.previous
        ended.previous = span
        ended = <Span>following
    return span


cdef object context_of(object other):
    if PyUnicode_CheckExact(other):
        return parse_traceparent(other)
    if type(other) is Span or type(other) is NoopSpan or issubclass(type(other), ExternalSpan):
        return other.context
    return None


cdef inline bint is_plain_text(object value) noexcept:
    return infertrace_is_plain_text(value, MAX_TEXT_BYTES)


cdef inline bint is_plain_scalar(object value):
    """Whether an attribute can hold this value unchanged."""
    cdef int overflow
    cdef double number
    if PyUnicode_CheckExact(value):
        return is_plain_text(value)
    if value is True or value is False:
        return True
    if PyLong_CheckExact(value):
        PyLong_AsLongLongAndOverflow(value, &overflow)
        return overflow == 0
    if PyFloat_CheckExact(value):
        number = PyFloat_AS_DOUBLE(value)
        return number - number == 0.0  # neither infinite nor NaN
    return False
