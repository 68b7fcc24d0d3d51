/* A growing text, and the JSON that goes into it: as Python's json.dumps writes it, with
 * separators "," and ":", ensure_ascii off. Each function returns 0, or -1 without memory.
 */
#ifndef INFERTRACE_DECODER_TEXT_H
#define INFERTRACE_DECODER_TEXT_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_FIRST_BYTES 1024

typedef struct {
    uint8_t *data;
    size_t size;
    size_t capacity;
} text_buffer;

static int text_room(text_buffer *t, size_t more) {
    size_t wanted = t->size + more, capacity = t->capacity ? t->capacity : TEXT_FIRST_BYTES;
    uint8_t *moved;
    if (wanted <= t->capacity) return 0;
    while (capacity < wanted)
        capacity *= 2;
    moved = realloc(t->data, capacity);
    if (moved == NULL) return -1;
    t->data = moved;
    t->capacity = capacity;
    return 0;
}

static inline int text_put(text_buffer *t, const void *data, size_t size) {
    if (text_room(t, size) < 0) return -1;
    if (size) memcpy(t->data + t->size, data, size);
    t->size += size;
    return 0;
}

#define TEXT_LITERAL(t, literal) text_put(t, literal, sizeof(literal) - 1)

/* Whether one of eight bytes is a control character, a quote or a backslash; it may also say so of
 * a byte after such a one. Source: Sean Eron Anderson, "Bit Twiddling Hacks", a zero byte. */
static inline int needs_escape(uint64_t bytes) {
    const uint64_t each = 0x0101010101010101u, top = 0x8080808080808080u;
    uint64_t quote = bytes ^ each * '"', backslash = bytes ^ each * '\\';
    uint64_t found = ((bytes - each * 0x20) & ~bytes) | ((quote - each) & ~quote) |
                     ((backslash - each) & ~backslash);
    return (found & top) != 0;
}

/* Copy a text; whether nothing in it has to be escaped. Eight bytes at a time, the last eight of
 * which may be copied twice. */
static int put_plain(uint8_t *out, const uint8_t *p, size_t size) {
    uint64_t bytes;
    size_t i;
    if (size < sizeof bytes) {
        for (i = 0; i < size; i++) {
            if (p[i] < 0x20 || p[i] == '"' || p[i] == '\\') return 0;
            out[i] = p[i];
        }
        return 1;
    }
    for (i = 0; i < size; i += sizeof bytes) {
        if (size - i < sizeof bytes) i = size - sizeof bytes;
        memcpy(&bytes, p + i, sizeof bytes);
        if (needs_escape(bytes)) return 0;
        memcpy(out + i, &bytes, sizeof bytes);
    }
    return 1;
}

static int json_string(text_buffer *t, const uint8_t *p, size_t size) {
    static const char hex[] = "0123456789abcdef";
    size_t i;
    uint8_t *out;
    if (size > SIZE_MAX / 8 || text_room(t, 6 * size + 2) < 0) return -1;
    out = t->data + t->size;
    *out++ = '"';
    i = put_plain(out, p, size) ? size : 0;
    out += i;
    for (; i < size; i++) {
        uint8_t c;
        while (size - i >= 8) {
            uint64_t bytes;
            memcpy(&bytes, p + i, sizeof bytes);
            if (needs_escape(bytes)) break;
            memcpy(out, &bytes, sizeof bytes);
            out += sizeof bytes;
            i += sizeof bytes;
        }
        if (i == size) break;
        c = p[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            *out++ = c;
            continue;
        }
        *out++ = '\\';
        switch (c) {
        case '"':
        case '\\': *out++ = c; break;
        case '\n': *out++ = 'n'; break;
        case '\r': *out++ = 'r'; break;
        case '\t': *out++ = 't'; break;
        case '\f': *out++ = 'f'; break;
        case '\b': *out++ = 'b'; break;
        default:
            memcpy(out, "u00", 3);
            out[3] = hex[c >> 4];
            out[4] = hex[c & 15];
            out += 5;
        }
    }
    *out++ = '"';
    t->size = (size_t)(out - t->data);
    return 0;
}

static int json_hex(text_buffer *t, const uint8_t *p, size_t size) {
    static const char hex[] = "0123456789abcdef";
    size_t i;
    if (text_room(t, 2 * size + 2) < 0) return -1;
    t->data[t->size++] = '"';
    for (i = 0; i < size; i++) {
        t->data[t->size++] = hex[p[i] >> 4];
        t->data[t->size++] = hex[p[i] & 15];
    }
    t->data[t->size++] = '"';
    return 0;
}

/* RFC 4648, section 4. */
static int json_base64(text_buffer *t, const uint8_t *p, size_t size) {
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t *out;
    if (text_room(t, size / 3 * 4 + 6) < 0) return -1;
    out = t->data + t->size;
    *out++ = '"';
    while (size) {
        size_t taken = size < 3 ? size : 3;
        uint32_t bits = (uint32_t)p[0] << 16;
        if (taken > 1) bits |= (uint32_t)p[1] << 8;
        if (taken > 2) bits |= p[2];
        *out++ = (uint8_t)letters[bits >> 18];
        *out++ = (uint8_t)letters[bits >> 12 & 63];
        *out++ = taken > 1 ? (uint8_t)letters[bits >> 6 & 63] : '=';
        *out++ = taken > 2 ? (uint8_t)letters[bits & 63] : '=';
        p += taken;
        size -= taken;
    }
    *out++ = '"';
    t->size = (size_t)(out - t->data);
    return 0;
}

static int json_integer(text_buffer *t, int64_t value) {
    char digits[24], *p = digits + sizeof digits;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        *--p = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (value < 0) *--p = '-';
    return text_put(t, p, (size_t)(digits + sizeof digits - p));
}

/* The shortest decimal digits that read back as `value` (finite, not zero, positive), and their
 * exponent: value = 0.DIGITS * 10^point. Of normal numbers, 15 digits decide first: what has no
 * more digits survives 15. Below the middle of a power of two the numbers lie twice as dense, so
 * there the next greater decimal can be right where the nearest one is not. */
static int shortest_digits(double value, char *digits, int *point) {
    int first = value < 2.2250738585072014e-308 ? 1 : 15, precision, count = 0, exponent = 0;
    for (precision = first; precision <= 17; precision++) {
        char text[48], *p;
        int again;
        snprintf(text, sizeof text, "%.*e", precision - 1, value);
        for (again = 0; again < 2; again++) {
            if (strtod(text, NULL) == value || precision == 17) break;
            p = strpbrk(text, "e") - 1;
            if (frexp(value, &exponent) != 0.5 || *p == '9') {
                again = 2;
                break;
            }
            ++*p;
        }
        if (again == 2) continue;
        /* The decimal point is the locale's; whatever is no digit is left out. */
        for (p = text; *p != 'e'; p++) {
            if (*p >= '0' && *p <= '9') digits[count++] = *p;
        }
        *point = atoi(p + 1) + 1;
        break;
    }
    while (count > 1 && digits[count - 1] == '0')
        count--;
    return count;
}

/* As float.__repr__: the shortest digits, with an exponent below 1e-4 and from 1e16 on. */
static int json_double(text_buffer *t, double value) {
    char digits[24], out[48], *p = out;
    int point, count, i;
    if (isnan(value)) return TEXT_LITERAL(t, "\"NaN\"");
    if (isinf(value))
        return value > 0 ? TEXT_LITERAL(t, "\"Infinity\"") : TEXT_LITERAL(t, "\"-Infinity\"");
    if (signbit(value)) *p++ = '-';
    if (value == 0) {
        memcpy(p, "0.0", 3);
        return text_put(t, out, (size_t)(p + 3 - out));
    }
    count = shortest_digits(fabs(value), digits, &point);
    if (point > -4 && point <= 16) {
        if (point <= 0) {
            *p++ = '0';
            *p++ = '.';
            for (i = point; i < 0; i++)
                *p++ = '0';
        }
        for (i = 0; i < count || i < point; i++) {
            if (i == point && point > 0) *p++ = '.';
            *p++ = i < count ? digits[i] : '0';
        }
        if (point >= count) {
            *p++ = '.';
            *p++ = '0';
        }
    } else {
        *p++ = digits[0];
        if (count > 1) {
            *p++ = '.';
            memcpy(p, digits + 1, (size_t)count - 1);
            p += count - 1;
        }
        p += snprintf(p, 8, "e%c%02d", point - 1 < 0 ? '-' : '+', abs(point - 1));
    }
    return text_put(t, out, (size_t)(p - out));
}

/* Nanoseconds since 1970 as RFC 3339. Days to a date: Howard Hinnant, "chrono-Compatible
 * Low-Level Date Algorithms", civil_from_days. */
static int json_time(text_buffer *t, int64_t nanos) {
    char out[48];
    int64_t seconds = nanos / 1000000000, fraction = nanos % 1000000000, days, era, rest;
    int64_t of_era, year, of_year, month, day;
    int size;
    if (fraction < 0) {
        fraction += 1000000000;
        seconds--;
    }
    days = seconds / 86400;
    rest = seconds % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    days += 719468;
    era = days / 146097; /* every time that 64 bits can say lies after the year 0 */
    of_era = days - era * 146097;
    year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    of_year = of_era - (365 * year + year / 4 - year / 100);
    month = (5 * of_year + 2) / 153;
    day = of_year - (153 * month + 2) / 5 + 1;
    month += month < 10 ? 3 : -9;
    year += era * 400 + (month <= 2);
    size = snprintf(out, sizeof out, "\"%04d-%02d-%02dT%02d:%02d:%02d.%09dZ\"", (int)year,
                    (int)month, (int)day, (int)(rest / 3600), (int)(rest / 60 % 60),
                    (int)(rest % 60), (int)fraction);
    return text_put(t, out, (size_t)size);
}

#endif
