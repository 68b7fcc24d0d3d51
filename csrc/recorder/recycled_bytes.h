/* A bytes object that only its maker has seen yet may still change its length. */
#ifndef INFERTRACE_RECYCLED_BYTES_H
#define INFERTRACE_RECYCLED_BYTES_H

#include <Python.h>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif

/* Let it be `size` bytes long, at most what it was made for; its pages stay its own. */
static inline void infertrace_cut_bytes(PyObject *bytes, Py_ssize_t size) {
    Py_SET_SIZE((PyVarObject *)bytes, size);
    PyBytes_AS_STRING(bytes)[size] = '\0';
    ((PyBytesObject *)bytes)->ob_shash = -1; /* not hashed with this content */
}

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#endif
