/* Columns that grow row by row, and are handed over by the Arrow C data interface.
 * Source: https://arrow.apache.org/docs/format/CDataInterface.html
 */
#ifndef INFERTRACE_DECODER_COLUMNS_H
#define INFERTRACE_DECODER_COLUMNS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "collector/decoder_text.h"
#include "generated/decoder_fields.h"

typedef struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
} ArrowArray;

enum { KIND_TEXT = 0 }; /* any other kind is the number of bytes of a value */

/* What all columns without a value share: no validity, values of zeros, empty texts. Nothing
 * writes to it, so that it takes no memory, and one that is merged or read stays in the cache. */
enum { ABSENT_ROWS = 1 << 18, WIDEST_VALUE = 16 };
static uint8_t absent_values[ABSENT_ROWS * WIDEST_VALUE];

/* Nothing is allocated for a column before its first value that is present. */
typedef struct {
    int kind;
    size_t present;
    size_t filled; /* offsets that are known */
    uint8_t *validity;
    uint8_t *values;
    int32_t *offsets;
    text_buffer text;
} column;

typedef struct {
    size_t capacity; /* rows; bounded before anything is allocated */
    size_t rows;
    column columns[COLUMN_COUNT];
} column_set;

static int column_begin(column_set *set, column *c) {
    c->validity = calloc(set->capacity / 8 + 1, 1);
    if (c->kind == KIND_TEXT) {
        c->offsets = malloc((set->capacity + 1) * sizeof(int32_t));
        return c->validity == NULL || c->offsets == NULL ? -1 : 0;
    }
    c->values = calloc(set->capacity, (size_t)c->kind);
    return c->validity == NULL || c->values == NULL ? -1 : 0;
}

static inline int column_mark(column_set *set, column *c) {
    if (c->validity == NULL && column_begin(set, c) < 0) return -1;
    c->validity[set->rows >> 3] |= (uint8_t)(1 << (set->rows & 7));
    c->present++;
    return 0;
}

/* A value of `size` bytes, as the column's values are: where that is a constant, no call copies. */
static inline int column_put(column_set *set, int place, const void *value, size_t size) {
    column *c = &set->columns[place];
    if (column_mark(set, c) < 0) return -1;
    memcpy(c->values + set->rows * size, value, size);
    return 0;
}

/* The text of this row is what was appended since the row before. */
static inline int column_put_appended(column_set *set, int place, size_t start) {
    column *c = &set->columns[place];
    if (column_mark(set, c) < 0) return -1;
    while (c->filled <= set->rows)
        c->offsets[c->filled++] = (int32_t)start;
    return 0;
}

static inline int column_put_text(column_set *set, int place, const uint8_t *p, size_t size) {
    column *c = &set->columns[place];
    size_t start = c->text.size;
    if (text_put(&c->text, p, size) < 0) return -1;
    return column_put_appended(set, place, start);
}

static void columns_free(column_set *set) {
    int i;
    for (i = 0; i < COLUMN_COUNT; i++) {
        column *c = &set->columns[i];
        free(c->validity);
        free(c->values);
        free(c->offsets);
        free(c->text.data);
    }
    free(set);
}

/* Every array owns its buffers: a consumer may release them one by one, in any order. */
typedef struct {
    const void *buffers[3];
    void *owned[3];
} array_owner;

static void release_column(ArrowArray *array) {
    array_owner *owner = array->private_data;
    int i;
    for (i = 0; i < 3; i++)
        free(owner->owned[i]);
    free(owner);
    array->release = NULL;
}

static void release_table(ArrowArray *array) {
    int64_t i;
    for (i = 0; i < array->n_children; i++) {
        ArrowArray *child = array->children[i];
        if (child->release != NULL) child->release(child);
        free(child);
    }
    free(array->children);
    free(array->private_data);
    array->release = NULL;
}

static int export_column(column_set *set, column *c, ArrowArray *array) {
    array_owner *owner;
    size_t rows = set->rows;
    int is_shared = c->validity == NULL && rows < ABSENT_ROWS;
    if (c->validity == NULL && !is_shared && column_begin(set, c) < 0) return -1;
    owner = calloc(1, sizeof *owner);
    if (owner == NULL) return -1;
    if (c->kind == KIND_TEXT && !is_shared) {
        if (c->text.data == NULL && text_room(&c->text, 1) < 0) {
            free(owner);
            return -1;
        }
        while (c->filled <= rows)
            c->offsets[c->filled++] = (int32_t)c->text.size;
    }
    memset(array, 0, sizeof *array);
    array->length = (int64_t)rows;
    array->null_count = (int64_t)(rows - c->present);
    array->n_buffers = c->kind == KIND_TEXT ? 3 : 2;
    array->buffers = owner->buffers;
    array->private_data = owner;
    array->release = release_column;
    if (is_shared) {
        owner->buffers[0] = owner->buffers[1] = owner->buffers[2] = absent_values;
        return 0;
    }
    owner->owned[0] = c->validity;
    owner->buffers[0] = array->null_count ? c->validity : NULL;
    owner->buffers[1] = owner->owned[1] =
        c->kind == KIND_TEXT ? (void *)c->offsets : (void *)c->values;
    owner->buffers[2] = owner->owned[2] = c->text.data;
    c->validity = NULL;
    c->values = NULL;
    c->offsets = NULL;
    c->text.data = NULL;
    return 0;
}

/* A struct array with a child for each column, which takes over the memory of `set`. */
static int columns_export(column_set *set, ArrowArray *table) {
    int i;
    memset(table, 0, sizeof *table);
    table->length = (int64_t)set->rows;
    table->n_buffers = 1;
    table->private_data = calloc(1, sizeof(void *)); /* the one buffer: no row is absent */
    table->buffers = table->private_data;
    table->children = calloc(COLUMN_COUNT, sizeof(ArrowArray *));
    table->release = release_table;
    if (table->private_data == NULL || table->children == NULL) {
        release_table(table);
        return -1;
    }
    for (i = 0; i < COLUMN_COUNT; i++) {
        ArrowArray *child = calloc(1, sizeof *child);
        if (child == NULL || export_column(set, &set->columns[i], child) < 0) {
            free(child);
            release_table(table);
            return -1;
        }
        table->children[table->n_children++] = child;
    }
    return 0;
}

#endif
