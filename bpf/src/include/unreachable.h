// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* A packet that nobody can take is turned round as "destination unreachable", so that its sender is told
 * at once instead of waiting for a timeout. The answer enters the stack as if the device had received it. */
#pragma once
#include "metrics.h"

/* Tells the ingress program that a packet without tunnel metadata is our own answer. */
#define UNREACHABLE_MARK 0x636d0001

enum {
	ICMP_UNREACHABLE = 3,
	ICMP_HOST = 1,
	ICMP_PORT = 3,
	ICMP_ECHO_REPLY = 0,
	ICMP_ECHO_REQUEST = 8,
	ICMPV6_UNREACHABLE = 1,
	ICMPV6_ADDRESS = 3,
	ICMPV6_PORT = 4,
	ICMPV6_FIRST_INFORMATIONAL = 128,
	ANSWER_TTL = 64,
	WINDOW_NS = 100 * 1000 * 1000,
	ANSWERS_PER_WINDOW = 100,
	QUOTED_L4 = 8, /* enough for the sender's stack to find the socket */
};

/* Nobody has the address, or nobody is behind the port. */
enum unreachable { UNREACHABLE_ADDRESS, UNREACHABLE_PORT };

struct answer4 {
	struct iphdr ip;
	struct icmphdr icmp;
	struct iphdr quoted;
	__u8 quoted_l4[QUOTED_L4];
};

struct answer6 {
	struct ipv6hdr ip;
	struct icmphdr icmp;
	struct ipv6hdr quoted;
	__u8 quoted_l4[QUOTED_L4];
};

/* What the pseudo header adds to an ICMPv6 checksum besides the addresses. */
struct pseudo6 {
	__be32 source[4];
	__be32 destination[4];
	__be32 length;
	__be32 next_header;
};

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline int turn_round(struct __sk_buff *skb, void *answer, __u32 size)
{
	if (bpf_skb_change_tail(skb, sizeof(struct ethhdr) + size, 0) < 0 ||
	    bpf_skb_store_bytes(skb, sizeof(struct ethhdr), answer, size,
				BPF_F_INVALIDATE_HASH | BPF_F_RECOMPUTE_CSUM) < 0)
		return 0;
	skb->mark = UNREACHABLE_MARK;
	return 1;
}

static __always_inline int answer_unreachable4(struct __sk_buff *skb,
							enum unreachable what)
{
	struct answer4 answer = {};

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &answer.quoted,
			       sizeof(answer.quoted) + QUOTED_L4) < 0)
		return 0;
	if (answer.quoted.protocol == IPPROTO_ICMP && answer.quoted_l4[0] != ICMP_ECHO_REQUEST &&
	    answer.quoted_l4[0] != ICMP_ECHO_REPLY)
		return 0;
	answer.icmp.type = ICMP_UNREACHABLE;
	answer.icmp.code = what == UNREACHABLE_PORT ? ICMP_PORT : ICMP_HOST;
	answer.icmp.checksum =
		fold(bpf_csum_diff(NULL, 0, (__be32 *)&answer.icmp,
				   sizeof(answer) - offsetof(struct answer4, icmp), 0));
	answer.ip.version_ihl = 0x45;
	answer.ip.length = const_bswap16(sizeof(answer));
	answer.ip.ttl = ANSWER_TTL;
	answer.ip.protocol = IPPROTO_ICMP;
	answer.ip.source = answer.quoted.destination;
	answer.ip.destination = answer.quoted.source;
	answer.ip.checksum =
		fold(bpf_csum_diff(NULL, 0, (__be32 *)&answer.ip, sizeof(answer.ip), 0));
	return turn_round(skb, &answer, sizeof(answer));
}

static __always_inline int answer_unreachable6(struct __sk_buff *skb,
							enum unreachable what)
{
	struct answer6 answer = {};
	struct pseudo6 pseudo = {};
	__u64 sum;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &answer.quoted,
			       sizeof(answer.quoted) + QUOTED_L4) < 0)
		return 0;
	if (answer.quoted.next_header == IPPROTO_ICMPV6 &&
	    answer.quoted_l4[0] < ICMPV6_FIRST_INFORMATIONAL)
		return 0;
	__builtin_memcpy(answer.ip.source, answer.quoted.destination, sizeof(answer.ip.source));
	__builtin_memcpy(answer.ip.destination, answer.quoted.source, sizeof(answer.ip.source));
	answer.ip.version_class_label = const_bswap32(0x60000000);
	answer.ip.payload_length =
		const_bswap16(sizeof(answer) - offsetof(struct answer6, icmp));
	answer.ip.next_header = IPPROTO_ICMPV6;
	answer.ip.hop_limit = ANSWER_TTL;
	__builtin_memcpy(pseudo.source, answer.ip.source, sizeof(pseudo.source));
	__builtin_memcpy(pseudo.destination, answer.ip.destination, sizeof(pseudo.source));
	pseudo.length = const_bswap32(sizeof(answer) - offsetof(struct answer6, icmp));
	pseudo.next_header = const_bswap32(IPPROTO_ICMPV6);
	answer.icmp.type = ICMPV6_UNREACHABLE;
	answer.icmp.code = what == UNREACHABLE_PORT ? ICMPV6_PORT : ICMPV6_ADDRESS;
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	answer.icmp.checksum =
		fold(bpf_csum_diff(NULL, 0, (__be32 *)&answer.icmp,
				   sizeof(answer) - offsetof(struct answer6, icmp), sum));
	return turn_round(skb, &answer, sizeof(answer));
}

/* At most ANSWERS_PER_WINDOW a window and CPU: a flood is not worth a flood of answers. */
static __always_inline int answers_are_due(void)
{
	__u64 now = bpf_ktime_get_ns();
	struct cm_limit *limit;
	__u32 zero = 0;

	limit = bpf_map_lookup_elem(&cm_limits, &zero);
	if (!limit)
		return 0;
	if (now - limit->since >= WINDOW_NS) {
		limit->since = now;
		limit->sent = 0;
	}
	limit->sent += 1;
	return limit->sent <= ANSWERS_PER_WINDOW;
}

/* Turns the packet into the answer; 0 when it must not or cannot be answered. */
static __always_inline int answer_unreachable(struct __sk_buff *skb, __u8 family,
					     enum unreachable what)
{
	if (!answers_are_due())
		return 0;
	return family == FAMILY_IPV4 ? answer_unreachable4(skb, what) :
				       answer_unreachable6(skb, what);
}
