// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* TCP handshakes through the overlay promise no segment larger than the overlay carries: for networks
 * that lose the ICMP messages of path MTU discovery. */
#pragma once
#include "metrics.h"

enum {
	TCP_FIXED_SIZE = 20,
	TCP_OFFSET_AND_FLAGS = 12,
	TCP_CHECKSUM = 16,
	TCP_SYN = 0x02,
	TCP_OPTION_END = 0,
	TCP_OPTION_NOP = 1,
	TCP_OPTION_MSS = 2,
	TCP_MAX_OPTIONS = 40,
	IPV6_HEADER_EXCESS = 20, /* an IPv6 header is this much longer than one of IPv4 */
};

static __always_inline void write_mss(struct __sk_buff *skb, __u32 tcp, __u32 option, __u16 limit)
{
	__be16 old, new = bswap16(limit);

	if (bpf_skb_load_bytes(skb, option + 2, &old, sizeof(old)) < 0 || bswap16(old) <= limit)
		return;
	/* The checksum adds 16-bit words that start at the header: at an odd place bytes trade roles. */
	if ((option - tcp) & 1)
		bpf_l4_csum_replace(skb, tcp + TCP_CHECKSUM, bswap16(old), bswap16(new), sizeof(new));
	else
		bpf_l4_csum_replace(skb, tcp + TCP_CHECKSUM, old, new, sizeof(new));
	bpf_skb_store_bytes(skb, option + 2, &new, sizeof(new), 0);
}

static __always_inline void clamp_mss(struct __sk_buff *skb, __u8 family, __u8 protocol, __u32 tcp)
{
	struct cm_state *state = agent_state();
	__u32 at = TCP_FIXED_SIZE, limit, end;
	__u8 head[2], option[2];

	if (protocol != IPPROTO_TCP || !state || !state->mss)
		return;
	if (bpf_skb_load_bytes(skb, tcp + TCP_OFFSET_AND_FLAGS, head, sizeof(head)) < 0 ||
	    !(head[1] & TCP_SYN))
		return;
	limit = state->mss;
	if (family == FAMILY_IPV6)
		limit -= IPV6_HEADER_EXCESS;
	end = (head[0] >> 4) * 4;
	for (int i = 0; i < TCP_MAX_OPTIONS; i++) {
		if (at + sizeof(option) > end ||
		    bpf_skb_load_bytes(skb, tcp + at, option, sizeof(option)) < 0 ||
		    option[0] == TCP_OPTION_END)
			return;
		if (option[0] == TCP_OPTION_NOP) {
			at += 1;
			continue;
		}
		if (option[0] == TCP_OPTION_MSS && option[1] == 4 && at + 4 <= end) {
			write_mss(skb, tcp, tcp + at, limit);
			return;
		}
		if (option[1] < 2)
			return;
		at += option[1];
	}
}
