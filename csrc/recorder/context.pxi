# The current span. The variable holds a cell, which holds the span: see context.h.

cdef extern from "recorder/context.h":
    PyObject* infertrace_look_up(object variable, object type) noexcept
    int infertrace_set(object variable, object value) except -1
    bint infertrace_is_own(PyObject* value) noexcept
    bint infertrace_learn_contexts(
        object context, object probe, object value, object variable
    ) noexcept

cdef object CELL = contextvars.ContextVar("infertrace_current_span")


@cython.final
@cython.internal
@cython.no_gc
cdef class Cell:
    cdef object span


cdef inline PyObject* current_cell() noexcept:
    """The cell of this context, borrowed; NULL if there is none."""
    return infertrace_look_up(CELL, Cell)


cdef inline PyObject* current_span_pointer() noexcept:
    """The current span, borrowed; NULL or None if there is none."""
    cdef PyObject* cell = current_cell()
    return NULL if cell is NULL else <PyObject*>(<Cell>cell).span


cdef inline int make_current(PyObject* cell, object span) except -1:
    """Make `span` (or None) the current one, in this context and in no copy of it.

    cell: as `current_cell()` has just returned it.
    """
    if cell is not NULL and infertrace_is_own(cell):
        (<Cell>cell).span = span
        return 0
    return make_current_by_new_cell(span)


cdef int make_current_by_new_cell(object span) except -1:
    cdef Cell fresh = Cell.__new__(Cell)
    fresh.span = span
    return infertrace_set(CELL, fresh)


cdef int learn_contexts() except -1:
    probe = contextvars.ContextVar("infertrace_probe")
    context = contextvars.Context()
    value = object()
    context.run(probe.set, value)
    infertrace_learn_contexts(context, probe, value, CELL)
    return 0


learn_contexts()


def current():
    """The current span of this context, or None."""
    cdef PyObject* span = current_span_pointer()
    return None if span is NULL else <object>span


def set_current(span):
    """Make `span` (or None) the current one of this context."""
    if type(span) is Span:
        # Mark it as entered, or a later `with` could take a span inside it for its parent.
        (<Span>span).entered = True
    make_current(current_cell(), span)


def exchange_current(span):
    """Make `span` (or None) the current one of this context, and return the one before."""
    before = current()
    set_current(span)
    return before


def restore_current(span, previous):
    """Where `span` is current, make `previous` so again, or the live span around that."""
    if current() is span:
        set_current(live(previous))
