// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* TCP handshakes through the overlay promise no segment larger than the overlay carries: for networks
 * that lose the ICMP messages of path MTU discovery. */
#pragma once
#include "metrics.h"

enum {
	TCP_FIXED_SIZE = 20,
	TCP_OFFSET = 12,
	TCP_FLAGS = 13,
	TCP_CHECKSUM = 16,
	TCP_SYN = 0x02,
	TCP_LIFE = 0x07, /* FIN, SYN and RST: a connection begins or ends */
	TCP_OPTION_END = 0,
	TCP_OPTION_NOP = 1,
	TCP_OPTION_MSS = 2,
	TCP_MAX_OPTIONS = 40,
	IPV6_HEADER_EXCESS = 20, /* an IPv6 header is this much longer than one of IPv4 */
};

enum { LOOP_GO_ON = 0, LOOP_STOP = 1 };

struct option_walk {
	struct __sk_buff *skb;
	__u32 tcp;   /* where the TCP header starts */
	__u32 at;    /* where the next option starts */
	__u32 end;   /* where the header ends */
	__u32 limit; /* the largest segment to promise */
};

static __always_inline void write_mss(const struct option_walk *walk)
{
	__u32 checksum = walk->tcp + TCP_CHECKSUM, place = walk->at + 2;
	__be16 old, new = bswap16(walk->limit);

	if (bpf_skb_load_bytes(walk->skb, place, &old, sizeof(old)) < 0 ||
	    bswap16(old) <= walk->limit)
		return;
	/* The checksum adds 16-bit words that start at the header: at an odd place bytes trade roles. */
	if ((place - walk->tcp) & 1)
		bpf_l4_csum_replace(walk->skb, checksum, bswap16(old), bswap16(new), sizeof(new));
	else
		bpf_l4_csum_replace(walk->skb, checksum, old, new, sizeof(new));
	bpf_skb_store_bytes(walk->skb, place, &new, sizeof(new), 0);
}

static long next_option(__u32 index, struct option_walk *walk)
{
	__u8 option[2];

	(void)index;
	if (walk->at + sizeof(option) > walk->end ||
	    bpf_skb_load_bytes(walk->skb, walk->at, option, sizeof(option)) < 0)
		return LOOP_STOP;
	if (option[0] == TCP_OPTION_NOP) {
		walk->at += 1;
		return LOOP_GO_ON;
	}
	if (option[0] == TCP_OPTION_MSS && option[1] == 4 && walk->at + 4 <= walk->end)
		write_mss(walk);
	if (option[0] == TCP_OPTION_END || option[0] == TCP_OPTION_MSS || option[1] < 2)
		return LOOP_STOP;
	walk->at += option[1];
	return LOOP_GO_ON;
}

/* Looks through the options of a handshake whose header has `size` bytes. */
static __always_inline void clamp_mss(struct __sk_buff *skb, __u32 tcp, __u32 size, __u32 limit)
{
	struct option_walk walk = {
		.skb = skb, .tcp = tcp, .at = tcp + TCP_FIXED_SIZE, .end = tcp + size, .limit = limit};

	bpf_loop(TCP_MAX_OPTIONS, next_option, &walk, 0);
}
