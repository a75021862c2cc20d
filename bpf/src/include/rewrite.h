// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Another address and port in a packet, with checksums that stay right: also those that a device is still to
 * finish, and UDP's over IPv4 that are not there. */
#pragma once
#include "segment.h"

enum end { SOURCE, DESTINATION };
enum { UDP_CHECKSUM_AT = 6, ICMP_CHECKSUM_AT = 2 };
enum { ETHERNET = sizeof(struct ethhdr) };

/* What an end of a packet is, and what it shall be. */
struct exchange {
	const __be32 *old;
	const __be32 *new;
	__be16 old_port;
	__be16 new_port;
};

static __always_inline __u32 address_at(__u8 family, __u32 ip, enum end end)
{
	if (family == FAMILY_IPV4)
		return ip + (end == SOURCE ? offsetof(struct iphdr, source) :
					     offsetof(struct iphdr, destination));
	return ip + (end == SOURCE ? offsetof(struct ipv6hdr, source) :
				     offsetof(struct ipv6hdr, destination));
}

/* What the new address adds to a checksum, in a sum of its own. */
static __always_inline __s64 address_difference(__u8 family, const struct exchange *how)
{
	__u32 size = family == FAMILY_IPV4 ? 4 : 16;

	return bpf_csum_diff((__be32 *)how->old, size, (__be32 *)how->new, size, 0);
}

/* The address of an IP header, and that header's own checksum. IPv6 has none: of a packet whose sum a device
 * has made, the kernel takes the pseudo header's share off, and the address has to put it on again. */
static __always_inline long rewrite_address(struct __sk_buff *skb, __u8 family, __u32 ip,
					    enum end end, const struct exchange *how)
{
	__u32 at = address_at(family, ip, end);

	if (family == FAMILY_IPV6)
		return bpf_skb_store_bytes(skb, at, how->new, 16,
					   ip == ETHERNET ? BPF_F_RECOMPUTE_CSUM : 0);
	if (bpf_l3_csum_replace(skb, ip + offsetof(struct iphdr, checksum), how->old[0],
				how->new[0], 4) < 0)
		return -1;
	return bpf_skb_store_bytes(skb, at, how->new, 4, 0);
}

/* A port, and the transport's checksum for it. */
static __always_inline long rewrite_port(struct __sk_buff *skb, const struct segment *segment,
					 enum end end, __be16 old, __be16 new)
{
	__u32 l4 = segment->at.l4_offset;
	int is_udp = segment->at.protocol == IPPROTO_UDP;
	__u32 checksum = l4 + (is_udp ? UDP_CHECKSUM_AT : TCP_CHECKSUM);
	__u32 port = l4 + (end == SOURCE ? 0 : 2);

	if (old == new)
		return 0;
	if (segment->unsummed) /* nothing in it makes up for the port */
		return bpf_skb_store_bytes(skb, port, &new, 2, BPF_F_RECOMPUTE_CSUM);
	if (bpf_l4_csum_replace(skb, checksum, old, new, (is_udp ? BPF_F_MARK_MANGLED_0 : 0) | 2) < 0)
		return -1;
	return bpf_skb_store_bytes(skb, port, &new, 2, 0);
}

/* An address's share of the transport's checksum, and the port of that end. */
static __always_inline long rewrite_transport(struct __sk_buff *skb, __u8 family,
					      const struct segment *segment, enum end end,
					      const struct exchange *how)
{
	__u32 l4 = segment->at.l4_offset;
	int is_udp = segment->at.protocol == IPPROTO_UDP;
	__u64 flags = is_udp ? BPF_F_MARK_MANGLED_0 : 0;
	__u32 checksum = l4 + (is_udp ? UDP_CHECKSUM_AT : TCP_CHECKSUM);

	if (!segment->unsummed && bpf_l4_csum_replace(skb, checksum, 0, address_difference(family, how),
						      flags | BPF_F_PSEUDO_HDR) < 0)
		return -1;
	return rewrite_port(skb, segment, end, how->old_port, how->new_port);
}

static __always_inline long rewrite_quoted_port(struct __sk_buff *skb, __u32 checksum,
						const struct quoted *quoted, enum end end,
						__be16 old, __be16 new)
{
	__u32 port = quoted->l4 + (end == SOURCE ? 0 : 2);

	if (old == new)
		return 0;
	if (bpf_l4_csum_replace(skb, checksum, old, new, 2) < 0)
		return -1;
	return bpf_skb_store_bytes(skb, port, &new, 2, 0);
}

/* An end of the packet that an ICMP error quotes. Over IPv4 the quoted header's own checksum makes up for the
 * address, so that the error's checksum sees the port only. */
static __always_inline long rewrite_quoted(struct __sk_buff *skb, __u8 family, __u32 checksum,
					   const struct quoted *quoted, enum end end,
					   const struct exchange *how)
{
	if (family == FAMILY_IPV6 &&
	    bpf_l4_csum_replace(skb, checksum, 0, address_difference(family, how), 0) < 0)
		return -1;
	if (rewrite_address(skb, family, quoted->ip, end, how) < 0)
		return -1;
	return rewrite_quoted_port(skb, checksum, quoted, end, how->old_port, how->new_port);
}

/* An end of the ICMP error itself; over IPv6 its checksum covers the address. */
static __always_inline long rewrite_error(struct __sk_buff *skb, __u8 family, __u32 checksum,
					  enum end end, const struct exchange *how)
{
	if (family == FAMILY_IPV6 &&
	    bpf_l4_csum_replace(skb, checksum, 0, address_difference(family, how),
				BPF_F_PSEUDO_HDR) < 0)
		return -1;
	return rewrite_address(skb, family, ETHERNET, end, how);
}
