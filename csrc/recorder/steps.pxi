# Tokens of requests, and steps of engines: the compiled twin of infertrace.recording.serving.

# What the members of a step add up to.
cdef struct Sums:
    int64_t prefill_tokens, decode_tokens
    Py_ssize_t invalid


cdef str STEP_OPERATION = serving_defaults.STEP_OPERATION
cdef str DEFAULT_ENGINE = serving_defaults.DEFAULT_ENGINE
cdef Py_ssize_t MAX_ENGINES = serving_defaults.MAX_ENGINES


@cython.final
@cython.internal
@cython.no_gc
@cython.auto_pickle(False)
cdef class StepCounter:
    cdef int64_t last


# By engine, how many steps began in this process.
cdef dict step_counters = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=step_counters.clear)


cdef int64_t next_step(str engine) except -1:
    """The index of an engine's next step: 1, 2, 3, ...; 0 where there are too many engines."""
    cdef PyObject* known = PyDict_GetItem(step_counters, engine)
    cdef StepCounter counter
    if known is not NULL:
        counter = <StepCounter>known
    elif len(step_counters) < MAX_ENGINES:
        counter = <StepCounter>step_counters.setdefault(
            engine, StepCounter.__new__(StepCounter)
        )
    else:
        return 0
    counter.last += 1
    return counter.last


# Members are pointers here: Cython counts a reference for each local that is an object.


cdef inline PyObject* own_of(PyObject* member) except NULL:
    """What a live span has as a request; made if it has none yet."""
    if not (<Span>member).own_serving:
        (<Span>member).serving()
    return (<Span>member).own_serving


cdef inline void add_tokens(
    PyObject* member, PyObject* own, int64_t now, int64_t count, infertrace_known_bucket* known
) noexcept:
    cdef bint counts_interval = not (<Span>member).present & HAS_TOKEN_INTERVALS
    if infertrace_add_tokens(&(<Serving>own).times, now, count, counts_interval, known) < 0:
        (<Span>member).invalid_fields += 1


cdef inline int add_step(PyObject* member, PyObject* own, Serving step) except -1:
    cdef int32_t* steps = &(<Serving>own).step_count
    if not (<Span>member).present & HAS_STEP_COUNT or (
        (<Serving>own).engine is not step.engine and (<Serving>own).engine != step.engine
    ):
        (<Serving>own).first_step = step.step_index
        steps[0] = 0
        (<Serving>own).engine = step.engine
        (<Span>member).present |= HAS_ENGINE | HAS_FIRST_STEP | HAS_LAST_STEP | HAS_STEP_COUNT
    (<Serving>own).last_step = step.step_index
    steps[0] += 1
    return 0


cdef inline int64_t unread(Span span, Serving own) noexcept:
    """Tokens of input that a request's steps have yet to read; 0 or less where none is left."""
    cdef int64_t left = -own.times.prefilled
    if not span.present & HAS_INPUT_TOKENS:
        return 0
    left += span.input_tokens
    if own.times.tokens:  # it lost its place, so that what it had generated is read again
        return left + own.times.tokens
    if span.present & HAS_CACHED_INPUT_TOKENS:
        left -= span.cached_input_tokens
    return left


cdef inline bint is_live(PyObject* member) noexcept:
    return PyType(<object>member) == <PyObject*>Span and not (<Span>member).ended


cdef inline int read_input(
    Serving step,
    int64_t now,
    bint worked,
    PyObject* item,
    infertrace_known_bucket* known,
    Sums* sums,
) except -1:
    cdef PyObject* member
    cdef PyObject* own
    cdef int32_t tokens
    cdef bint is_last
    if not is_prefill(item, &member, &tokens):
        sums.invalid += 1
        return 0
    sums.prefill_tokens += tokens
    if not is_live(member):
        return 0
    own = own_of(member)
    if step.step_index:
        add_step(member, own, step)
    if not worked:
        return 0
    (<Serving>own).times.prefilled += tokens
    if PyTuple_GET_SIZE(<object>item) == 3:
        is_last = <object>PyTuple_GET_ITEM(<object>item, 2) is True
    else:
        is_last = unread(<Span>member, <Serving>own) <= 0
    if is_last:
        (<Serving>own).times.prefilled = 0
        add_tokens(member, own, now, 1, known)
    return 0


cdef inline int generate(
    Serving step,
    int64_t now,
    bint worked,
    PyObject* item,
    infertrace_known_bucket* known,
    Sums* sums,
) except -1:
    cdef PyObject* member = item
    cdef PyObject* own
    cdef int32_t tokens = 1
    # First what nearly all are: a span that has not ended.
    if not is_live(item):
        if not is_decode(item, &member, &tokens):
            sums.invalid += 1
            return 0
        if not is_live(member):
            sums.decode_tokens += tokens
            return 0
    sums.decode_tokens += tokens
    own = own_of(member)
    if step.step_index:
        add_step(member, own, step)
    if worked:
        (<Serving>own).times.prefilled = 0
        add_tokens(member, own, now, tokens, known)
    return 0


cdef int end_step(Serving step, int64_t now, bint worked, Sums* sums) except -1:
    """Each member gets its step and, if that `worked`, its tokens."""
    cdef tuple prefill = step.prefill, decode = step.decode
    cdef Py_ssize_t place
    cdef infertrace_known_bucket known
    known.interval_ns = 0
    step.prefill = step.decode = None
    if prefill is not None:
        for place in range(PyTuple_GET_SIZE(prefill)):
            read_input(step, now, worked, PyTuple_GET_ITEM(prefill, place), &known, sums)
    if decode is not None:
        for place in range(PyTuple_GET_SIZE(decode)):
            generate(step, now, worked, PyTuple_GET_ITEM(decode, place), &known, sums)
    return 0


cdef inline bint is_member(PyObject* value) noexcept:
    return (
        PyType(<object>value) == <PyObject*>Span
        or PyType(<object>value) == <PyObject*>NoopSpan
    )


cdef inline bint is_prefill(PyObject* item, PyObject** member, int32_t* tokens) noexcept:
    """Whether it is (request, tokens) or (request, tokens, whether these are the last)."""
    cdef Py_ssize_t size
    if not PyTuple_CheckExact(<object>item):
        return False
    size = PyTuple_GET_SIZE(<object>item)
    if size != 2 and size != 3:
        return False
    member[0] = PyTuple_GET_ITEM(<object>item, 0)
    return is_member(member[0]) and infertrace_as_count(
        <object>PyTuple_GET_ITEM(<object>item, 1), tokens
    )


cdef inline bint is_decode(PyObject* item, PyObject** member, int32_t* tokens) noexcept:
    """Whether it is a request, or (request, tokens) where a step generates several."""
    if is_member(item):
        member[0] = item
        tokens[0] = 1
        return True
    if not PyTuple_CheckExact(<object>item) or PyTuple_GET_SIZE(<object>item) != 2:
        return False
    member[0] = PyTuple_GET_ITEM(<object>item, 0)
    return is_member(member[0]) and infertrace_as_count(
        <object>PyTuple_GET_ITEM(<object>item, 1), tokens
    )


cdef tuple members_of(object given, Py_ssize_t* invalid):
    """What was given, at this moment; None if it is no iterable, which counts as invalid."""
    if given is None:
        return None
    if type(given) is list:
        return PyList_AsTuple(given)
    try:
        return tuple(given)
    except Exception:
        invalid[0] += 1
        return None


cdef Py_ssize_t keep_members(Serving step, object prefill, object decode) except -1:
    """Remember who is in a step; returns how many of the two cannot be gone through."""
    cdef Py_ssize_t invalid = 0
    step.prefill = members_of(prefill, &invalid)
    step.decode = members_of(decode, &invalid)
    return invalid


cdef inline int32_t as_count(int64_t number) noexcept:
    return <int32_t>number if number <= INT32_MAX else INT32_MAX


cdef int begin_step(Span span, object prefill, object decode, object capacity) except -1:
    """Give a step that has just begun its members, its index and what follows from these."""
    cdef Serving step = span.serving()
    cdef Py_ssize_t invalid, size = 0
    cdef int32_t largest
    if not span.present & HAS_ENGINE:
        step.engine = DEFAULT_ENGINE
        span.present |= HAS_ENGINE
    if not span.present & HAS_STEP_INDEX:
        step.step_index = next_step(step.engine)
        if step.step_index:
            span.present |= HAS_STEP_INDEX
        else:
            span.refuse("engine", step.engine, serving_defaults.ENGINES)
    if prefill is not None or decode is not None:
        invalid = keep_members(step, prefill, decode)
        if invalid:
            refuse_members(span, invalid)
        if step.prefill is not None:
            size += len(step.prefill)
        if step.decode is not None:
            size += len(step.decode)
        if not span.present & HAS_BATCH_SIZE:
            span.batch_size = as_count(size)
            span.present |= HAS_BATCH_SIZE
    if capacity is not None:
        if not infertrace_as_count(capacity, &largest) or not largest:
            span.refuse("capacity", capacity, serving_defaults.CAPACITY)
        elif span.present & HAS_BATCH_SIZE and not span.present & HAS_BATCH_FILL_RATIO:
            span.batch_fill_ratio = <float>(<double>span.batch_size / <double>largest)
            if span.batch_size > largest:
                span.batch_fill_ratio = 1.0
                span.refuse("capacity", capacity, serving_defaults.CAPACITY)
            span.present |= HAS_BATCH_FILL_RATIO
    return 0


cdef int refuse_members(Span span, Py_ssize_t count) except -1:
    # Not Span.refuse(): a step that ends has its fields yet.
    span.invalid_fields += <uint32_t>count
    invalid_values.notice("step", None, serving_defaults.MEMBERS, span.recorder.wake)
    return 0


cdef object unrecorded_step(object prefill, object decode, str engine):
    """A step that is not recorded, and whose members may be: they get their tokens all the same."""
    cdef NoopSpan span
    cdef Serving step = Serving.__new__(Serving)
    keep_members(step, prefill, decode)
    step.engine = engine
    step.step_index = next_step(engine)
    span = new_noop(True, None)
    span.step = step
    span.call = <vectorcallfunc><void*>call_unrecorded_step
    return span


cdef object call_unrecorded_step(
    NoopSpan self, PyObject** arguments, size_t count, PyObject* names
):
    cdef bint leaves = PyVectorcall_NARGS(count) == 3
    result = call_noop(self, arguments, count, names)
    if leaves and self.step is not None:
        self.end_step(arguments[1] == <PyObject*>None, infertrace_monotonic_ns())
    return result


cdef int settle_step(Span span, Serving step) except -1:
    cdef Sums sums
    memset(&sums, 0, sizeof(sums))
    try:
        end_step(step, span.start + span.duration, span.status == STATUS_OK, &sums)
    except MemoryError:
        span.invalid_fields += 1
    if not span.present & HAS_PREFILL_TOKENS:
        step.prefill_tokens = as_count(sums.prefill_tokens)
    if not span.present & HAS_DECODE_TOKENS:
        step.decode_tokens = as_count(sums.decode_tokens)
    span.present |= HAS_PREFILL_TOKENS | HAS_DECODE_TOKENS
    if sums.invalid:
        refuse_members(span, sums.invalid)
    return 0


cdef int settle(Span span, Serving serving) except -1:
    """Before a span is encoded: a step's members get it, a request what its tokens amount to."""
    cdef int64_t lasted
    if serving.prefill is not None or serving.decode is not None:
        settle_step(span, serving)
    if not serving.times.tokens:
        return 0
    if not span.present & HAS_OUTPUT_TOKENS:
        span.output_tokens = as_count(serving.times.tokens)
    if not span.present & HAS_TIME_TO_FIRST_TOKEN_MS:
        lasted = serving.times.first_token - span.start
        span.time_to_first_token_ms = <float>(<double>(lasted if lasted > 0 else 0) / 1e6)
    span.present |= HAS_OUTPUT_TOKENS | HAS_TIME_TO_FIRST_TOKEN_MS
    lasted = serving.times.last_token - serving.times.first_token
    if not lasted:
        return 0
    if not span.present & HAS_INTER_TOKEN_LATENCY_MS:
        span.inter_token_latency_ms = <float>(
            <double>lasted / 1e6 / <double>(serving.times.tokens - 1)
        )
    if not span.present & HAS_MAX_INTER_TOKEN_LATENCY_MS:
        serving.max_inter_token_latency_ms = <float>(<double>serving.times.longest_interval / 1e6)
    span.present |= HAS_INTER_TOKEN_LATENCY_MS | HAS_MAX_INTER_TOKEN_LATENCY_MS
    if not span.present & HAS_TOKEN_INTERVALS and serving.times.intervals.room:
        infertrace_find_ends(&serving.times.intervals)
        infertrace_narrow(&serving.times.intervals)
        span.present |= HAS_TOKEN_INTERVALS
    return 0


# In C, these have the interpreter's fast calling convention.
cdef object token(Span self, PyObject** arguments, Py_ssize_t positional, PyObject* names):
    cdef int32_t count = 1
    cdef infertrace_known_bucket known
    if not positional and names is NULL and not self.ended:
        add_token(<PyObject*>self)
    elif read_count(self, arguments, positional, names, &count):
        known.interval_ns = 0
        add_tokens(
            <PyObject*>self, own_of(<PyObject*>self), infertrace_token_ns(), count, &known
        )
    return None


cdef inline int add_token(PyObject* request) except -1:
    cdef infertrace_known_bucket known
    known.interval_ns = 0
    add_tokens(request, own_of(request), infertrace_token_ns(), 1, &known)
    return 0


cdef object token_of_noop(
    NoopSpan self, PyObject** arguments, Py_ssize_t positional, PyObject* names
):
    return None


cdef bint read_count(
    Span self, PyObject** arguments, Py_ssize_t positional, PyObject* names, int32_t* count
) except -1:
    cdef object given = 1
    cdef Py_ssize_t named = 0 if names is NULL else len(<tuple>names)
    if positional + named > 1 or (named and (<tuple>names)[0] != "count"):
        raise TypeError("token() takes one argument, count")
    if positional + named:
        given = <object>arguments[0]
    if not self.ended and infertrace_as_count(given, count):
        return True
    kept, as_given = values.count(given)
    if not as_given or self.ended:
        allowed = invalid_values.BEFORE_THE_END if as_given else invalid_values.COUNT
        self.refuse("token", given, allowed)
    if kept is None or self.ended:
        return False
    count[0] = kept
    return True


cdef PyMethodDef token_definition, token_of_noop_definition
cdef const char* TOKEN_SIGNATURE = b"token($self, count=1)\n--\n\n"
infertrace_add_method(
    Span, "token", <infertrace_fast_method><void*>token, TOKEN_SIGNATURE, &token_definition
)
infertrace_add_method(
    NoopSpan,
    "token",
    <infertrace_fast_method><void*>token_of_noop,
    TOKEN_SIGNATURE,
    &token_of_noop_definition,
)
