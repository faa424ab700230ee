// philox.h: Philox-4x32-10 (Salmon, Moraes, Dror and Shaw, 2011) and where dropout finds its byte.
#ifndef DLATTN_SHARED_PHILOX_H
#define DLATTN_SHARED_PHILOX_H

#include "shared.h"

typedef struct dlattn_philox_key {
    dlattn_u32 k0, k1;      // seed low, seed high + offset high
    dlattn_u32 offset_low;  // last word of every counter
} dlattn_philox_key;

DLATTN_SHARED dlattn_philox_key dlattn_philox_make_key(dlattn_u64 seed, dlattn_u64 offset) {
    dlattn_philox_key key;
    key.k0 = (dlattn_u32)seed;
    key.k1 = (dlattn_u32)(seed >> 32) + (dlattn_u32)(offset >> 32);
    key.offset_low = (dlattn_u32)offset;
    return key;
}

// c: the counter, replaced by the four random words.
DLATTN_SHARED void dlattn_philox(dlattn_u32 c[4], dlattn_u32 k0, dlattn_u32 k1) {
    for (int round = 0; round < 10; round++) {
        dlattn_u64 a = (dlattn_u64)0xD2511F53u * c[0], b = (dlattn_u64)0xCD9E8D57u * c[2];
        dlattn_u32 c1 = c[1], c3 = c[3];
        c[0] = (dlattn_u32)(b >> 32) ^ c1 ^ k0;
        c[1] = (dlattn_u32)b;
        c[2] = (dlattn_u32)(a >> 32) ^ c3 ^ k1;
        c[3] = (dlattn_u32)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

// The byte of score (i, j) of head `head` = b*H + h; i, j may be negative.
DLATTN_SHARED dlattn_u32 dlattn_dropout_byte(const dlattn_philox_key *key, dlattn_u32 head, dlattn_i64 i,
                                             dlattn_i64 j) {
    dlattn_u32 row = (dlattn_u32)(i & 7), octet = (dlattn_u32)((i >> 3) & 1);
    dlattn_u32 c[4];
    c[0] = (dlattn_u32)(j >> 5) * 32u + row * 4u + (dlattn_u32)((j & 7) >> 1);
    c[1] = (dlattn_u32)(i >> 4);
    c[2] = head;
    c[3] = key->offset_low;
    dlattn_philox(c, key->k0, key->k1);
    // Selects, because a GPU keeps an array with a computed index in memory.
    dlattn_u32 low = j & 8 ? c[1] : c[0], high = j & 8 ? c[3] : c[2], word = j & 16 ? high : low;
    return (word >> (8 * (octet * 2 + (dlattn_u32)(j & 1)))) & 255u;
}

#endif
