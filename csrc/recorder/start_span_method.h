/* Recorder.start_span as a method that reads its arguments from the interpreter's own array.
 *
 * Cython's own parsing of twenty keywords shows in the cost of a span even when none is given.
 */
#ifndef INFERTRACE_START_SPAN_METHOD_H
#define INFERTRACE_START_SPAN_METHOD_H

#include <Python.h>

typedef PyObject *(*infertrace_fast_method)(PyObject *self, PyObject *const *arguments,
                                            Py_ssize_t positional, PyObject *names);

/* Make `function` the method `name` of `type`, which is not in use yet; -1 with an exception. */
static int infertrace_add_method(PyObject *type, const char *name, infertrace_fast_method function,
                                 const char *documentation, PyMethodDef *definition) {
    PyObject *method;
    int outcome;
    definition->ml_name = name;
    definition->ml_meth = (PyCFunction)(void (*)(void))function;
    definition->ml_flags = METH_FASTCALL | METH_KEYWORDS;
    definition->ml_doc = documentation;
    method = PyDescr_NewMethod((PyTypeObject *)type, definition);
    if (!method) return -1;
    outcome = PyDict_SetItemString(((PyTypeObject *)type)->tp_dict, name, method);
    Py_DECREF(method);
    PyType_Modified((PyTypeObject *)type);
    return outcome;
}

#endif
