/* Makes and frees spans where Cython's own code would crash the process. */
#ifndef INFERTRACE_SPAN_TYPE_H
#define INFERTRACE_SPAN_TYPE_H

#include <Python.h>

static destructor infertrace_release_span = NULL;
static Py_ssize_t infertrace_previous_offset = 0;

static inline PyObject **infertrace_previous_of(PyObject *span) {
    return (PyObject **)((char *)span + infertrace_previous_offset);
}

/* If a span holds the only reference to the span around it, which holds the only one to the next,
 * and so on, each deallocator would call the next: a long chain overflows the stack. So this
 * deallocator takes the chain apart first, link by link. */
static void infertrace_release_chain(PyObject *span) {
    PyTypeObject *type = Py_TYPE(span);
    PyObject **link = infertrace_previous_of(span), *next = *link;
    if (next && Py_TYPE(next) == type && Py_REFCNT(next) == 1) {
        Py_INCREF(Py_None);
        *link = Py_None;
        while (Py_TYPE(next) == type && Py_REFCNT(next) == 1) {
            PyObject **its_link = infertrace_previous_of(next), *after = *its_link;
            if (!after) break;
            Py_INCREF(Py_None);
            *its_link = Py_None;
            Py_DECREF(next);
            next = after;
        }
        Py_DECREF(next);
    }
    infertrace_release_span(span);
}

/* `type` is not in use yet, and its objects hold the span around them at `offset`. */
static void infertrace_unlink_before_release(PyObject *type_object, Py_ssize_t offset) {
    PyTypeObject *type = (PyTypeObject *)type_object;
    infertrace_previous_offset = offset;
    infertrace_release_span = type->tp_dealloc;
    type->tp_dealloc = infertrace_release_chain;
}

static PyObject *infertrace_no_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    (void)type, (void)arguments, (void)keywords;
    PyErr_SetString(PyExc_TypeError, "a span is made by Tracer.start_span()");
    return NULL;
}

/* `Span.__new__(Span)` would make a span without a recorder; Cython's own code does not need it. */
static void infertrace_refuse_new(PyObject *type_object) {
    PyTypeObject *type = (PyTypeObject *)type_object;
    type->tp_new = infertrace_no_new;
    type->tp_vectorcall = NULL; /* it would take precedence over tp_new */
}

#endif
