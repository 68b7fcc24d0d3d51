/* The encoded fields of the few texts that nearly every span repeats: operations and models.
 *
 * The key is the str object, which the cache keeps alive. A program that makes a new str for each
 * span only gets cache misses.
 */
#ifndef INFERTRACE_FIELD_CACHE_H
#define INFERTRACE_FIELD_CACHE_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "common/text.h"
#include "common/wire_write.h"

#define FIELD_CACHE_ENTRIES 8
/* Bytes of an entry: fixed, so that a copy needs no call; the caller provides that much room. */
#define FIELD_CACHE_BYTES 64

typedef struct {
    PyObject *text;
    Py_ssize_t size;
    uint8_t bytes[FIELD_CACHE_BYTES];
} infertrace_cached_field;

typedef infertrace_cached_field infertrace_field_cache[FIELD_CACHE_ENTRIES];

/* Append the field `tag` with `text`, an exact str; NULL, with an exception, without memory. */
static inline uint8_t *infertrace_put_repeated(infertrace_cached_field *cache, uint8_t *p,
                                               uint8_t tag, PyObject *text) {
    infertrace_cached_field *entry =
        &cache[((uintptr_t)text >> 4 ^ (uintptr_t)text >> 9) % FIELD_CACHE_ENTRIES];
    const char *data;
    Py_ssize_t size;
    if (entry->text == text) {
        memcpy(p, entry->bytes, FIELD_CACHE_BYTES);
        return p + entry->size;
    }
    data = infertrace_utf8(text, &size);
    if (!data) return NULL;
    if (size <= FIELD_CACHE_BYTES - 2) {
        Py_INCREF(text);
        Py_XSETREF(entry->text, text);
        entry->size = wire_bytes(entry->bytes, tag, data, size) - entry->bytes;
    }
    return wire_bytes(p, tag, data, size);
}

static void infertrace_clear_fields(infertrace_cached_field *cache) {
    int i;
    for (i = 0; i < FIELD_CACHE_ENTRIES; i++)
        Py_CLEAR(cache[i].text);
}

#endif
