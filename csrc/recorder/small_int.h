/* The value of a small exact int, without a call; a bool is not an exact int. */
#ifndef INFERTRACE_SMALL_INT_H
#define INFERTRACE_SMALL_INT_H

#include <Python.h>
#include <stdint.h>

/* Whether `value` is an exact int from 0 to 2**31 - 1; if so, `*count` is its value. */
static inline int infertrace_as_count(PyObject *value, int32_t *count) {
    long long number;
    int overflow;
    if (!PyLong_CheckExact(value)) return 0;
#if PY_VERSION_HEX >= 0x030C0000
    if (PyUnstable_Long_IsCompact((PyLongObject *)value))
        number = PyUnstable_Long_CompactValue((PyLongObject *)value);
    else
#else
    if (Py_SIZE(value) == 1)
        number = ((PyLongObject *)value)->ob_digit[0];
    else
#endif
    {
        number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow) return 0;
    }
    if (number < 0 || number > INT32_MAX) return 0;
    *count = (int32_t)number;
    return 1;
}

#endif
