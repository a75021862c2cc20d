// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What is read of a packet's headers, wherever they lie. */
#pragma once
#include "metrics.h"

/* A forwarded packet that shall leave with this node's address, so that its answer comes back here: one bit,
 * for our postrouting chain. */
enum { FROM_NODE_MARK = 0x1000 };

struct inner {
	struct ipcache_key source;
	struct ipcache_key destination;
	__u32 l4_offset;
	__u8 protocol;	  /* 0 when the transport header is elsewhere: a later fragment */
	__u8 unreachable; /* whether an ICMP error may answer it */
};

enum { LAST_HEADER = 127 }; /* no header of ours starts behind it: bounds what the verifier sees */

/* Where `size` bytes at `offset` lie, made linear when they are not; good until the packet changes. */
static __always_inline void *header(struct __sk_buff *skb, __u32 offset, __u32 size)
{
	void *at = (void *)(long)skb->data + (offset & LAST_HEADER);

	if (at + size > (void *)(long)skb->data_end) {
		if (bpf_skb_pull_data(skb, offset + size) < 0)
			return NULL;
		at = (void *)(long)skb->data + (offset & LAST_HEADER);
		if (at + size > (void *)(long)skb->data_end)
			return NULL;
	}
	return at;
}

/* Addresses that mean something on one host or one link only. What came from elsewhere with such a one
 * would reach, for example, what listens on the loopback device where kube-proxy has opened that. */
static __always_inline int confined4(__be32 address)
{
	return (address & const_bswap32(0xf0000000)) == const_bswap32(0xe0000000) ||
	       (address & const_bswap32(0xff000000)) == const_bswap32(0x7f000000) || !address ||
	       address == 0xffffffff;
}

static __always_inline int confined6(const __be32 address[4])
{
	return (address[0] & const_bswap32(0xff000000)) == const_bswap32(0xff000000) ||
	       (address[0] & const_bswap32(0xffc00000)) == const_bswap32(0xfe800000) ||
	       (!address[0] && !address[1] && !address[2] &&
		(!address[3] || address[3] == const_bswap32(1)));
}

static __always_inline enum reason parse_ipv4(struct __sk_buff *skb, struct inner *inner)
{
	struct iphdr *ip = header(skb, sizeof(struct ethhdr), sizeof(*ip));

	if (!ip || (ip->version_ihl & 0xf0) != 0x40 || (ip->version_ihl & 0x0f) < 5)
		return DROP_INVALID_PACKET;
	inner->source.address[0] = ip->source;
	inner->destination.address[0] = ip->destination;
	inner->source.family = inner->destination.family = FAMILY_IPV4;
	inner->source.prefixlen = inner->destination.prefixlen = IPCACHE_STATIC_BITS + 32;
	inner->l4_offset = sizeof(struct ethhdr) + (ip->version_ihl & 0x0f) * 4;
	if (!(ip->fragment & const_bswap16(0x1fff))) {
		inner->protocol = ip->protocol;
		inner->unreachable = ip->version_ihl == 0x45;
	}
	if (confined4(ip->destination) || confined4(ip->source))
		return DROP_UNROUTABLE;
	return FORWARDED;
}

static __always_inline enum reason parse_ipv6(struct __sk_buff *skb, struct inner *inner)
{
	struct ipv6hdr *ip = header(skb, sizeof(struct ethhdr), sizeof(*ip));

	if (!ip || (ip->version_class_label & const_bswap32(0xf0000000)) != const_bswap32(0x60000000))
		return DROP_INVALID_PACKET;
	__builtin_memcpy(inner->source.address, ip->source, sizeof(ip->source));
	__builtin_memcpy(inner->destination.address, ip->destination, sizeof(ip->destination));
	inner->source.family = inner->destination.family = FAMILY_IPV6;
	inner->source.prefixlen = inner->destination.prefixlen = IPCACHE_STATIC_BITS + 128;
	inner->l4_offset = sizeof(struct ethhdr) + sizeof(*ip);
	inner->protocol = ip->next_header;
	inner->unreachable = 1;
	if (confined6(ip->destination) || confined6(ip->source))
		return DROP_UNROUTABLE;
	return FORWARDED;
}

static __always_inline enum reason parse(struct __sk_buff *skb, struct inner *inner)
{
	if (skb->vlan_present) /* the stack would throw it away without a word */
		return DROP_UNKNOWN_L3;
	switch (skb->protocol) {
	case const_bswap16(ETH_P_IP):
		return parse_ipv4(skb, inner);
	case const_bswap16(ETH_P_IPV6):
		return parse_ipv6(skb, inner);
	default:
		return DROP_UNKNOWN_L3;
	}
}
