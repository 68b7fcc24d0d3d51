/* Changes the length of a bytes object that only its maker has seen so far. */
#ifndef INFERTRACE_RECYCLED_BYTES_H
#define INFERTRACE_RECYCLED_BYTES_H

#include <Python.h>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif

/* Set its length to `size`, at most the size it was made with; it keeps all of its memory. */
static inline void infertrace_cut_bytes(PyObject *bytes, Py_ssize_t size) {
    Py_SET_SIZE((PyVarObject *)bytes, size);
    PyBytes_AS_STRING(bytes)[size] = '\0';
    ((PyBytesObject *)bytes)->ob_shash = -1; /* not hashed with this content */
}

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#endif
