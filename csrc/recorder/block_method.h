/* `__enter__` and `__exit__` that are not bound at every `with`.
 *
 * Before CPython 3.14 a `with` statement makes and drops two bound-method objects, which
 * costs a good part of the span. So here the two names are descriptors that return the
 * span itself, and the statement calls the span: with no argument it enters, with three
 * it leaves.
 */
#ifndef INFERTRACE_BLOCK_METHOD_H
#define INFERTRACE_BLOCK_METHOD_H

#include <Python.h>

typedef struct {
    PyObject_HEAD
    const char *name;
    PyTypeObject *owner;
} infertrace_block_method;

static PyObject *infertrace_block_method_get(PyObject *self, PyObject *span, PyObject *type) {
    (void)type;
    if (!span) span = self; /* looked up on the class */
    Py_INCREF(span);
    return span;
}

/* `Span.__exit__(span, kind, error, traceback)`, as contextlib.ExitStack calls it. */
static PyObject *infertrace_block_method_call(PyObject *self, PyObject *arguments,
                                              PyObject *keywords) {
    infertrace_block_method *method = (infertrace_block_method *)self;
    Py_ssize_t count = PyTuple_GET_SIZE(arguments);
    PyObject *span = count ? PyTuple_GET_ITEM(arguments, 0) : NULL, *rest, *result;
    if (!span || !PyObject_TypeCheck(span, method->owner)) {
        PyErr_Format(PyExc_TypeError, "%s() needs a span as its first argument", method->name);
        return NULL;
    }
    rest = PyTuple_GetSlice(arguments, 1, count);
    if (!rest) return NULL;
    result = PyObject_Call(span, rest, keywords);
    Py_DECREF(rest);
    return result;
}

static PyObject *infertrace_block_method_repr(PyObject *self) {
    infertrace_block_method *method = (infertrace_block_method *)self;
    return PyUnicode_FromFormat("<method '%s' of '%s' objects>", method->name,
                                method->owner->tp_name);
}

static PyTypeObject infertrace_block_method_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "infertrace.recording.native.BlockMethod",
    .tp_basicsize = sizeof(infertrace_block_method),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_descr_get = infertrace_block_method_get,
    .tp_call = infertrace_block_method_call,
    .tp_repr = infertrace_block_method_repr,
};

static int infertrace_add_block_method(PyTypeObject *type, const char *name) {
    int outcome;
    infertrace_block_method *method =
        PyObject_New(infertrace_block_method, &infertrace_block_method_type);
    if (!method) return -1;
    method->name = name;
    method->owner = type;
    outcome = PyDict_SetItemString(type->tp_dict, name, (PyObject *)method);
    Py_DECREF(method);
    return outcome;
}

/* Have a call of an object of `type`, which is not in use yet, enter or leave a block: each object
 * holds its vectorcall function at `offset`. */
static int infertrace_make_block(PyObject *type_object, Py_ssize_t offset) {
    PyTypeObject *type = (PyTypeObject *)type_object;
    if (PyType_Ready(&infertrace_block_method_type) < 0) return -1;
    type->tp_vectorcall_offset = offset;
    type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
    type->tp_call = PyVectorcall_Call;
    if (infertrace_add_block_method(type, "__enter__") < 0) return -1;
    if (infertrace_add_block_method(type, "__exit__") < 0) return -1;
    PyType_Modified(type);
    return 0;
}

#endif
