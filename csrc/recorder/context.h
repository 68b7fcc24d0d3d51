/* Whether a value in the current context can be reached through this context alone.
 *
 * A context is a persistent map (HAMT), and setting a variable builds a new map: two
 * sets per span would be most of a span's cost. So the variable holds a cell, and a span
 * enters and leaves by changing the cell, which is correct exactly as long as nobody
 * else can see the cell: a copied context (a task, a callback, copy_context()) shares the
 * map, its node or the cell with the original, and so raises a reference count on the path
 * from the context to the cell. If no count on that path is higher than the context itself
 * makes it, the cell belongs to this context alone. If one is, or the path is not understood,
 * the caller sets the variable to a fresh cell, and the copies keep the old one as it was.
 *
 * The layouts are those of CPython 3.10 to 3.14 (pycore_context.h, pycore_hamt.h, hamt.c);
 * learning the node type checks them against a context of known content. Elsewhere, and
 * on a free-threaded build, the answer is always no.
 */
#ifndef INFERTRACE_CONTEXT_H
#define INFERTRACE_CONTEXT_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

#if !defined(PYPY_VERSION) && !defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030A0000 &&         \
    PY_VERSION_HEX < 0x030F0000
#define INFERTRACE_KNOWS_CONTEXTS 1
#else
#define INFERTRACE_KNOWS_CONTEXTS 0
#endif

typedef struct {
    PyObject_HEAD
    PyObject *previous;
    PyObject *vars;
} infertrace_context_layout;

typedef struct {
    PyObject_HEAD
    PyObject *root;
} infertrace_hamt_layout;

typedef struct {
    PyObject_VAR_HEAD
    uint32_t bitmap;
    PyObject *entries[1]; /* key, value; or NULL, child node */
} infertrace_bitmap_node_layout;

static PyTypeObject *infertrace_bitmap_node_type = NULL;

static int infertrace_node_solely_holds(PyObject *node, PyObject *value) {
    infertrace_bitmap_node_layout *bitmap = (infertrace_bitmap_node_layout *)node;
    Py_ssize_t i;
    if (Py_REFCNT(node) != 1 || Py_TYPE(node) != infertrace_bitmap_node_type) return 0;
    for (i = 0; i + 1 < Py_SIZE(node); i += 2) {
        PyObject *found = bitmap->entries[i + 1];
        if (found == value) return 1;
        if (!bitmap->entries[i] && infertrace_node_solely_holds(found, value)) return 1;
    }
    return 0;
}

#if INFERTRACE_KNOWS_CONTEXTS
/* Source: struct _pycontextvarobject of CPython's pycore_context.h. */
typedef struct {
    PyObject_HEAD
    PyObject *name;
    PyObject *default_value;
    PyObject *cached;
    uint64_t cached_thread;
    uint64_t cached_version;
} infertrace_variable_layout;

/* The variable caches the value last looked up or set, valid as long as neither the thread nor the
 * version of its context changes; reading the cache here saves two calls. Before CPython 3.12 the
 * GC may run inside another variable's set(); the context then loses what a finalizer sets, and
 * frees it while the variable still points to it. So a cached value counts only if it is also
 * `infertrace_kept`, to which we hold a reference. */
static infertrace_variable_layout infertrace_unknown_variable;
static infertrace_variable_layout *infertrace_current_variable = &infertrace_unknown_variable;
static PyObject *infertrace_kept = NULL;

/* Takes over the reference to `value`, which may be NULL. */
static inline void infertrace_keep(PyObject *value) {
    PyObject *dropped = infertrace_kept;
    infertrace_kept = value;
    Py_XDECREF(dropped);
}
#define INFERTRACE_OWN_REFERENCES 2 /* the context's and the kept one */
#endif

/* The value of `variable` in the current context, borrowed; NULL if there is none, or if it is not
 * ours, since anybody can reach the variable through copy_context(). */
static inline PyObject *infertrace_look_up(PyObject *variable, PyObject *type) {
    PyObject *value = NULL;
#if INFERTRACE_KNOWS_CONTEXTS
    PyThreadState *thread = PyThreadState_Get();
    const infertrace_variable_layout *cache = infertrace_current_variable;
    if (cache->cached_version == thread->context_ver && cache->cached_thread == thread->id &&
        cache->cached == infertrace_kept)
        return infertrace_kept;
#endif
    if (PyContextVar_Get(variable, NULL, &value) < 0) {
        PyErr_Clear();
        return NULL;
    }
    if (value && (PyObject *)Py_TYPE(value) != type) Py_CLEAR(value);
#if INFERTRACE_KNOWS_CONTEXTS
    infertrace_keep(value);
#else
    Py_XDECREF(value); /* the context holds it */
#endif
    return value;
}

/* Set `variable`; -1 with an exception if there is no memory. */
static inline int infertrace_set(PyObject *variable, PyObject *value) {
    /* Before CPython 3.12 the GC may run while CPython copies the map; a finalizer that sets a
     * variable would then free the map in mid-copy. */
    int collects = PyGC_Disable();
    PyObject *token = PyContextVar_Set(variable, value);
    if (collects) PyGC_Enable();
    if (!token) return -1;
    Py_DECREF(token);
#if INFERTRACE_KNOWS_CONTEXTS
    Py_INCREF(value);
    infertrace_keep(value);
#endif
    return 0;
}

/* `value` is the result of a lookup just before. */
static inline int infertrace_is_own(PyObject *value) {
#if INFERTRACE_KNOWS_CONTEXTS
    PyObject *context = PyThreadState_Get()->context, *vars;
    if (!infertrace_bitmap_node_type || !context || Py_REFCNT(value) != INFERTRACE_OWN_REFERENCES)
        return 0;
    vars = ((infertrace_context_layout *)context)->vars;
    if (Py_REFCNT(vars) != 1) return 0;
    return infertrace_node_solely_holds(((infertrace_hamt_layout *)vars)->root, value);
#else
    (void)value;
    return 0;
#endif
}

/* `context` holds only `probe` = `value`, and this thread has just set `probe`. Returns whether
 * both have the expected layout; from then on, lookups of `variable` take the fast path. */
static int infertrace_learn_contexts(PyObject *context, PyObject *probe, PyObject *value,
                                     PyObject *variable) {
#if INFERTRACE_KNOWS_CONTEXTS
    PyObject *vars, *root;
    infertrace_bitmap_node_layout *node;
    const infertrace_variable_layout *cache = (const infertrace_variable_layout *)probe;
    if (strcmp(Py_TYPE(context)->tp_name, "_contextvars.Context") &&
        strcmp(Py_TYPE(context)->tp_name, "Context"))
        return 0;
    vars = ((infertrace_context_layout *)context)->vars;
    if (strcmp(Py_TYPE(vars)->tp_name, "hamt")) return 0;
    root = ((infertrace_hamt_layout *)vars)->root;
    if (strcmp(Py_TYPE(root)->tp_name, "hamt_bitmap_node") || Py_SIZE(root) != 2) return 0;
    node = (infertrace_bitmap_node_layout *)root;
    if (node->entries[0] != probe || node->entries[1] != value) return 0;
    if (Py_TYPE(probe)->tp_basicsize < (Py_ssize_t)sizeof(*cache) || cache->cached != value ||
        cache->cached_thread != PyThreadState_Get()->id)
        return 0;
    infertrace_bitmap_node_type = Py_TYPE(root);
    infertrace_current_variable = (infertrace_variable_layout *)variable;
    return 1;
#else
    (void)context, (void)probe, (void)value, (void)variable;
    return 0;
#endif
}

#endif
