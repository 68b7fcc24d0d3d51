# Records spans that have already finished: one, or a batch from columns.

cdef enum ColumnForm:
    COLUMN_COUNTS
    COLUMN_ORDINALS
    COLUMN_MEASURES


cdef struct Column:
    const char* data
    Py_ssize_t stride
    bint wide  # 8-byte items, else 4-byte ones
    ColumnForm form
    void* field  # of the one span that is reused for each row
    double upper
    uint32_t presence
    int64_t refused  # values that were left out or clamped


cdef inline int64_t integer_at(Column* column, Py_ssize_t row) noexcept:
    cdef const char* item = column.data + row * column.stride
    cdef int64_t wide
    cdef int32_t narrow
    # A copy, since a column of packed records need not be aligned.
    if column.wide:
        memcpy(&wide, item, sizeof(wide))
        return wide
    memcpy(&narrow, item, sizeof(narrow))
    return narrow


cdef inline double real_at(Column* column, Py_ssize_t row) noexcept:
    cdef const char* item = column.data + row * column.stride
    cdef double wide
    cdef float narrow
    if column.wide:
        memcpy(&wide, item, sizeof(wide))
        return wide
    memcpy(&narrow, item, sizeof(narrow))
    return narrow


cdef inline void set_from_column(Span span, Column* column, Py_ssize_t row) noexcept:
    """Does with a number what the setter of the field does."""
    cdef int64_t integer
    cdef double real
    if column.form != COLUMN_MEASURES:
        integer = integer_at(column, row)
        if column.form == COLUMN_ORDINALS and integer >= 0:
            (<int64_t*>column.field)[0] = integer
        elif 0 <= integer <= INT32_MAX:
            (<int32_t*>column.field)[0] = <int32_t>integer
        else:
            column.refused += 1
            span.invalid_fields += 1
            if integer < 0:
                return
            (<int32_t*>column.field)[0] = INT32_MAX
    else:
        real = real_at(column, row)
        if not (real >= 0.0 and real - real == 0.0):
            column.refused += 1
            span.invalid_fields += 1
            return
        if real > column.upper:
            real = column.upper
            column.refused += 1
            span.invalid_fields += 1
        (<float*>column.field)[0] = <float>real
    span.present |= column.presence


cdef int64_t record_rows(
    Recorder recorder, Span span, dict views, dict objects, bint has_parent, bint is_sampled
) except -1:
    """Record one span for each row, reusing `span` for all of them."""
    cdef Py_buffer[<Py_ssize_t>MAX_COLUMNS] buffers
    cdef Column[<Py_ssize_t>MAX_COLUMNS] columns
    cdef Py_ssize_t rows = len(views["start_ns"])
    cdef int count = 0, number
    cdef int64_t recorded
    cdef Rows given = Rows.__new__(Rows) if objects else None
    if given is not None:
        given.take(span, objects, has_parent, is_sampled)
    try:
        for name, view in views.items():
            PyObject_GetBuffer(view, &buffers[count], PyBUF_STRIDED_RO | PyBUF_FORMAT)
            columns[count].data = <const char*>buffers[count].buf
            columns[count].stride = buffers[count].strides[0]
            columns[count].wide = buffers[count].itemsize == 8
            columns[count].refused = 0
            columns[count].field = NULL
            if count >= 2:  # after start_ns and duration_ns
                bind(span, name, &columns[count])
            count += 1
        if given is None:
            recorded = record_number_rows(recorder, span, columns, count, rows)
        else:
            recorded = record_object_rows(recorder, span, given, columns, count, rows)
        for number, name in enumerate(views):
            if columns[number].refused:
                notice_column(recorder, name, &columns[number])
    finally:
        for number in range(count):
            PyBuffer_Release(&buffers[number])
    return recorded


cdef int64_t record_number_rows(
    Recorder recorder, Span span, Column* columns, int count, Py_ssize_t rows
) except -1:
    cdef int64_t start, duration, recorded = 0
    cdef uint32_t invalid_in_each = span.invalid_fields
    cdef bint root = not span.parent_id
    cdef Py_ssize_t row
    cdef int number
    for row in range(rows):
        if root:
            span.trace_low = infertrace_next_id(&recorder.ids.trace_low)
            if not recorder.samples_all and span.trace_low >= recorder.sample_bound:
                continue
            span.trace_high = infertrace_next_id(&recorder.ids.trace_high)
        span.id = infertrace_next_id(&recorder.ids.span)
        span.present = 0
        span.invalid_fields = invalid_in_each
        start = integer_at(&columns[0], row)
        duration = integer_at(&columns[1], row)
        for number in range(2, count):
            set_from_column(span, &columns[number], row)
        recorded += 1
        if not record_finished(recorder, span, start, duration):
            columns[start >= MIN_START_UNIX_NS].refused += 1
    return recorded


cdef int64_t record_object_rows(
    Recorder recorder, Span span, Rows given, Column* columns, int count, Py_ssize_t rows
) except -1:
    cdef int64_t start, recorded = 0
    cdef uint32_t invalid_in_each = span.invalid_fields
    cdef Py_ssize_t row
    cdef int number
    for row in range(rows):
        span.present = 0
        span.invalid_fields = invalid_in_each
        if not given.fill(recorder, span, row):
            continue
        span.id = infertrace_next_id(&recorder.ids.span)
        start = integer_at(&columns[0], row)
        for number in range(2, count):
            set_from_column(span, &columns[number], row)
        recorded += 1
        if not record_finished(recorder, span, start, integer_at(&columns[1], row)):
            columns[start >= MIN_START_UNIX_NS].refused += 1
    return recorded


cdef frozenset ROW_CONTEXTS = frozenset((batch_columns.PARENTS, batch_columns.TRACE_IDS))
cdef str ANY_PARENT = f"00-{1:032x}-{1:016x}-01"  # each row that is recorded has another one


@cython.final
@cython.internal
@cython.auto_pickle(False)
cdef class Rows:
    """The columns of objects of a batch, and where its spans are unless a row says otherwise."""

    cdef object parents, trace_ids, tags
    cdef dict setters  # column by setter
    cdef uint64_t trace_high, trace_low, parent_id
    cdef uint8_t origin
    cdef bint has_parent, is_sampled

    cdef int take(self, Span span, dict objects, bint has_parent, bint is_sampled) except -1:
        self.trace_high, self.trace_low = span.trace_high, span.trace_low
        self.parent_id, self.origin = span.parent_id, span.origin
        self.has_parent, self.is_sampled = has_parent, is_sampled
        self.parents = objects.pop(batch_columns.PARENTS, None)
        self.trace_ids = objects.pop(batch_columns.TRACE_IDS, None)
        self.tags = objects.pop(batch_columns.TAGS, None)
        self.setters = objects
        return 0

    cdef bint fill(self, Recorder recorder, Span span, Py_ssize_t row) except -1:
        """Say where the span of a row is, and what it has; False if it is not sampled."""
        parent = None if self.parents is None else self.parents[row]
        own = None if self.trace_ids is None else self.trace_ids[row]
        if not self.place(recorder, span, parent, own):
            return False
        for name, column in self.setters.items():
            set_object(span, name, column[row])
        if span.extras is not None:
            span.extras.tags = None
        if self.tags is not None and self.tags[row] is not None:
            fill(span, self.tags[row], None, None)
        return True

    cdef bint place(self, Recorder recorder, Span span, object parent, object own) except -1:
        cdef object context = None
        number = 0 if own is None else batch_columns.trace_id(own)
        if parent is not None:
            context = context_of(parent)
            if context is None:
                if not self.is_sampled:
                    return False
                span.refuse("parent", parent, invalid_values.PARENT)
        elif not self.has_parent and number:
            return begin_trace(recorder, span, number >> 64, number & 0xFFFFFFFFFFFFFFFF)
        if context is not None:
            if not context.sampled:
                return False
            span.trace_high = context.trace_id >> 64
            span.trace_low = context.trace_id & 0xFFFFFFFFFFFFFFFF
            span.parent_id = context.span_id
            span.origin = self.origin & ~PARENT_IS_REMOTE | PyUnicode_CheckExact(parent)
        elif not self.is_sampled:
            return False
        elif self.parent_id:
            span.trace_high, span.trace_low = self.trace_high, self.trace_low
            span.parent_id, span.origin = self.parent_id, self.origin
        elif not begin_trace(recorder, span, 0, 0):
            return False
        if own is not None and number != (<object>span.trace_high << 64 | span.trace_low):
            span.refuse("trace_id", own, invalid_values.TRACE_ID)
        return True


cdef bint begin_trace(Recorder recorder, Span span, uint64_t high, uint64_t low) except -1:
    """Make the span the root of that trace, or of a new one (0, 0); False if it is not sampled."""
    cdef bint is_new = not high and not low
    span.trace_low = infertrace_next_id(&recorder.ids.trace_low) if is_new else low
    span.parent_id = 0
    span.origin &= ~PARENT_IS_REMOTE
    if not recorder.samples_all and span.trace_low >= recorder.sample_bound:
        return False
    span.trace_high = infertrace_next_id(&recorder.ids.trace_high) if is_new else high
    return True


cdef int notice_column(Recorder recorder, str name, Column* column) except -1:
    """Have the exporter log that this column has invalid values."""
    if column.field is NULL:
        return notice_times(recorder, name == "start_ns", 0)
    if column.form == COLUMN_MEASURES:
        return recorder.notice(name, 0.0, invalid_values.measure(column.upper))
    is_count = column.form == COLUMN_COUNTS
    return recorder.notice(name, 0, invalid_values.COUNT if is_count else invalid_values.ORDINAL)


cdef int notice_times(Recorder recorder, bint is_start, object value) except -1:
    if is_start:
        return recorder.notice("start_ns", value, invalid_values.START)
    return recorder.notice("duration_ns", value, invalid_values.DURATION)


cdef inline bint record_finished(
    Recorder recorder, Span span, int64_t start_ns, int64_t duration_ns
) except -1:
    """Buffer a span with these times; False if they are invalid, and the span is dropped."""
    if start_ns < MIN_START_UNIX_NS or duration_ns < 0 or start_ns > INT64_MAX - duration_ns:
        recorder.buffer.produced += 1
        recorder.buffer.invalid_fields += span.invalid_fields
        recorder.buffer.drop(INVALID, 1)
        return False
    span.start = start_ns - recorder.anchor
    span.duration = duration_ns
    recorder.put(span)
    return True


cdef inline int record_span(
    Recorder recorder, Span span, start_ns, duration_ns, status, status_message
) except -1:
    cdef int64_t start
    if type(status) is not str or status != "OK" or status_message is not None:
        span.set_status(status, status_message)
    span.ended = True
    start = nanoseconds(start_ns)
    if not record_finished(recorder, span, start, nanoseconds(duration_ns)):
        is_start = start < MIN_START_UNIX_NS
        notice_times(recorder, is_start, start_ns if is_start else duration_ns)
    return 0


cdef int64_t nanoseconds(object value) except? -1:
    """The value if it is a 64-bit integer, else -1."""
    cdef int overflow
    cdef long long number
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        return -1 if overflow else number
    kept, _ = values.scalar(value)
    return -1 if type(kept) is not int else kept
