// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Bob Jenkins' lookup3 over three words and over eleven bytes more: contract datapath 3.6. The Python model
 * is in tests/support/bpf_selection.py. */
#pragma once
#include "kernel.h"

#define ROTATE(word, by) (((word) << (by)) | ((word) >> (32 - (by))))
#define JHASH_INITIAL 0xdeadbeefU

#define JHASH_MIX(a, b, c)                                                                   \
	do {                                                                                 \
		a -= c, a ^= ROTATE(c, 4), c += b;                                           \
		b -= a, b ^= ROTATE(a, 6), a += c;                                           \
		c -= b, c ^= ROTATE(b, 8), b += a;                                           \
		a -= c, a ^= ROTATE(c, 16), c += b;                                          \
		b -= a, b ^= ROTATE(a, 19), a += c;                                          \
		c -= b, c ^= ROTATE(b, 4), b += a;                                           \
	} while (0)

#define JHASH_FINAL(a, b, c)                                                                 \
	do {                                                                                 \
		c ^= b, c -= ROTATE(b, 14);                                                  \
		a ^= c, a -= ROTATE(c, 11);                                                  \
		b ^= a, b -= ROTATE(a, 25);                                                  \
		c ^= b, c -= ROTATE(b, 16);                                                  \
		a ^= c, a -= ROTATE(c, 4);                                                   \
		b ^= a, b -= ROTATE(a, 14);                                                  \
		c ^= b, c -= ROTATE(b, 24);                                                  \
	} while (0)

static __always_inline __u32 jhash_3words(__u32 a, __u32 b, __u32 c, __u32 seed)
{
	seed += JHASH_INITIAL + (3 << 2);
	a += seed;
	b += seed;
	c += seed;
	JHASH_FINAL(a, b, c);
	return c;
}

/* Four words of an address and two more. */
static __always_inline __u32 jhash_address(const __u32 address[4], __u32 ports, __u32 protocol,
					   __u32 seed)
{
	__u32 a = address[0], b = address[1], c = address[2];

	JHASH_MIX(a, b, c);
	a += address[3];
	b += ports;
	c += protocol;
	JHASH_MIX(a, b, c);
	a += seed;
	JHASH_FINAL(a, b, c);
	return c;
}
