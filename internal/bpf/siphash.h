//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// SipHash-2-4 (Aumasson and Bernstein, 2012), keyed so that nobody outside can
// choose what falls together or what a cookie is.
#pragma once
#include "kernel.h"

#define ROTL(x, b) ((x) << (b) | (x) >> (64 - (b)))
#define SIPROUND do { \
	v0 += v1; v1 = ROTL(v1, 13); v1 ^= v0; v0 = ROTL(v0, 32); \
	v2 += v3; v3 = ROTL(v3, 16); v3 ^= v2; \
	v0 += v3; v3 = ROTL(v3, 21); v3 ^= v0; \
	v2 += v1; v1 = ROTL(v1, 17); v1 ^= v2; v2 = ROTL(v2, 32); \
} while (0)

// siphash of n words (each in the machine's byte order), at most 8.
inline_ __u64 siphash(__u64 k0, __u64 k1, const __u64 *m, int n)
{
	__u64 v0 = k0 ^ 0x736f6d6570736575ULL, v1 = k1 ^ 0x646f72616e646f6dULL;
	__u64 v2 = k0 ^ 0x6c7967656e657261ULL, v3 = k1 ^ 0x7465646279746573ULL;
	__u64 last = (__u64)(n * 8) << 56;

	for (int i = 0; i < n; i++) {
		v3 ^= m[i];
		SIPROUND;
		SIPROUND;
		v0 ^= m[i];
	}
	v3 ^= last;
	SIPROUND;
	SIPROUND;
	v0 ^= last;
	v2 ^= 0xff;
	SIPROUND;
	SIPROUND;
	SIPROUND;
	SIPROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}

// A flow, and what goes with it.
struct flow_words {
	__u64 w[5];
};

once_ __u64 hash_of_flow(const struct flow_words *f, __u64 k0, __u64 k1)
{
	return !f ? 0 : siphash(k0, k1, f->w, 5);
}
