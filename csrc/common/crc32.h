/* The checksum of what may be torn: a record in a spool, a reading of a GPU in a shared page. */
#ifndef INFERTRACE_CRC32_H
#define INFERTRACE_CRC32_H

#include <stddef.h>
#include <stdint.h>

static uint32_t infertrace_crc_tables[8][256];

static void infertrace_make_crc_tables(void) {
    uint32_t n, k;
    for (n = 0; n < 256; n++) {
        uint32_t c = n;
        for (k = 0; k < 8; k++)
            c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        infertrace_crc_tables[0][n] = c;
    }
    for (n = 0; n < 256; n++)
        for (k = 1; k < 8; k++) {
            uint32_t c = infertrace_crc_tables[k - 1][n];
            infertrace_crc_tables[k][n] = infertrace_crc_tables[0][c & 0xFF] ^ (c >> 8);
        }
}

/* zlib's crc32(data, seed), eight bytes at a time. Source: RFC 1952, section 8; Kounavis and
 * Berry, "A Systematic Approach to Building High Performance Software-based CRC Generators". */
static uint32_t infertrace_crc32(const uint8_t *p, size_t size, uint32_t seed) {
    uint32_t c = ~seed;
    while (size >= 8) {
        uint32_t low = c ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                            (uint32_t)p[3] << 24);
        c = infertrace_crc_tables[7][low & 0xFF] ^ infertrace_crc_tables[6][(low >> 8) & 0xFF] ^
            infertrace_crc_tables[5][(low >> 16) & 0xFF] ^ infertrace_crc_tables[4][low >> 24] ^
            infertrace_crc_tables[3][p[4]] ^ infertrace_crc_tables[2][p[5]] ^
            infertrace_crc_tables[1][p[6]] ^ infertrace_crc_tables[0][p[7]];
        p += 8, size -= 8;
    }
    while (size--)
        c = infertrace_crc_tables[0][(c ^ *p++) & 0xFF] ^ (c >> 8);
    return ~c;
}

#endif
