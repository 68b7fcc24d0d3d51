/* The UTF-8 form of a str: ASCII needs no call; otherwise CPython caches the form in the str. */
#ifndef INFERTRACE_TEXT_H
#define INFERTRACE_TEXT_H

#include <Python.h>

/* The UTF-8 of `text`, an exact str; NULL, with an exception set, for a lone surrogate. */
static inline const char *infertrace_utf8(PyObject *text, Py_ssize_t *size) {
    if (PyUnicode_IS_READY(text) && PyUnicode_IS_COMPACT_ASCII(text)) {
        *size = PyUnicode_GET_LENGTH(text);
        return (const char *)PyUnicode_DATA(text);
    }
    return PyUnicode_AsUTF8AndSize(text, size);
}

/* Whether `value` can be recorded unchanged: an exact str of at most `limit` bytes of valid UTF-8.
 */
static inline int infertrace_is_plain_text(PyObject *value, Py_ssize_t limit) {
    Py_ssize_t size;
    if (!PyUnicode_CheckExact(value) || PyUnicode_GET_LENGTH(value) > limit) return 0;
    if (infertrace_utf8(value, &size)) return size <= limit;
    PyErr_Clear();
    return 0;
}

#endif
