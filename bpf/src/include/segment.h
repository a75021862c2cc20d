// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What of a packet decides about its connection: addresses, ports, TCP flags. */
#pragma once
#include "conntrack.h"
#include "unreachable.h"

#define FRAGMENT_OFFSET const_bswap16(0x1fff)
#define FRAGMENT_MORE const_bswap16(0x2000)
#define FRAGMENT6_OFFSET const_bswap16(0xfff8)

/* Parts of a datagram: the first has the ports, and leaves them for those behind it. */
static __always_inline int read_fragment(struct __sk_buff *skb, struct segment *segment)
{
	struct cm_fragment_ports *ports, first;
	struct cm_fragment part = {};
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)) < 0)
		return 0;
	if (!(ip.fragment & (FRAGMENT_OFFSET | FRAGMENT_MORE)))
		return 1;
	part.source = ip.source;
	part.destination = ip.destination;
	part.id = ip.id;
	part.protocol = ip.protocol;
	if (!(ip.fragment & FRAGMENT_OFFSET)) {
		first.source = segment->source_port;
		first.destination = segment->destination_port;
		return bpf_map_update_elem(&cm_fragments, &part, &first, BPF_ANY) == 0;
	}
	segment->late = 1;
	segment->at.protocol = ip.protocol;
	ports = bpf_map_lookup_elem(&cm_fragments, &part);
	if (!ports)
		return 0;
	segment->source_port = ports->source;
	segment->destination_port = ports->destination;
	return 1;
}

/* IPv6 says so in a header between its own and the transport's. */
struct fragment6 {
	__u8 next_header;
	__u8 reserved;
	__be16 offset; /* in bits 3 to 15 */
	__be32 id;
};

/* Reads that header, and moves on to the one behind it; whether there was one. */
static __always_inline int skip_fragment6(struct __sk_buff *skb, struct segment *segment,
					  struct fragment6 *part)
{
	if (segment->at.protocol != IPPROTO_FRAGMENT ||
	    bpf_skb_load_bytes(skb, segment->at.l4_offset, part, sizeof(*part)) < 0)
		return 0;
	segment->at.l4_offset += sizeof(*part);
	segment->at.protocol = part->next_header;
	segment->at.unreachable = 0; /* an answer could not quote what the sender looks for */
	segment->late = (part->offset & FRAGMENT6_OFFSET) != 0;
	return 1;
}

/* As for IPv4: the first part leaves its ports for those behind it. */
static __always_inline int read_fragment6(const struct fragment6 *part, struct segment *segment)
{
	struct cm_fragment_ports *ports, first;
	struct cm_fragment6 at = {.id = part->id, .protocol = part->next_header};

	__builtin_memcpy(at.source, segment->at.source.address, sizeof(at.source));
	__builtin_memcpy(at.destination, segment->at.destination.address, sizeof(at.destination));
	if (!segment->late) {
		first.source = segment->source_port;
		first.destination = segment->destination_port;
		return bpf_map_update_elem(&cm_fragments6, &at, &first, BPF_ANY) == 0;
	}
	ports = bpf_map_lookup_elem(&cm_fragments6, &at);
	if (!ports)
		return 0;
	segment->source_port = ports->source;
	segment->destination_port = ports->destination;
	return 1;
}

static __always_inline int has_ports(const struct segment *segment)
{
	return segment->at.protocol == IPPROTO_TCP || segment->at.protocol == IPPROTO_UDP;
}

enum { UDP_HEADER = 8, TCP_FLAGS_TO_CHECKSUM = TCP_CHECKSUM + 2 - TCP_FLAGS };

/* Whether it is a segment or a datagram whose ports are known, with as much of its header as translating it
 * takes. Addresses are read already. */
static __always_inline int read_ports(struct __sk_buff *skb, __u8 family, struct segment *segment)
{
	__u8 tcp[TCP_FLAGS_TO_CHECKSUM];
	__be16 head[UDP_HEADER / 2];
	struct fragment6 part;
	int parted = family == FAMILY_IPV6 && skip_fragment6(skb, segment, &part);

	if (has_ports(segment) && !segment->late) {
		if (bpf_skb_load_bytes(skb, segment->at.l4_offset, head, sizeof(head)) < 0)
			return 0;
		segment->source_port = head[0];
		segment->destination_port = head[1];
		segment->unsummed = segment->at.protocol == IPPROTO_UDP && !head[3];
	}
	if (family == FAMILY_IPV4 && !read_fragment(skb, segment))
		return 0;
	if (!has_ports(segment) || (parted && !read_fragment6(&part, segment)))
		return 0;
	if (segment->at.protocol != IPPROTO_TCP || segment->late)
		return 1;
	if (bpf_skb_load_bytes(skb, segment->at.l4_offset + TCP_FLAGS, tcp, sizeof(tcp)) < 0)
		return 0;
	segment->tcp_flags = tcp[0];
	return 1;
}

static __always_inline int is_handshake(const struct segment *segment)
{
	return segment->at.protocol == IPPROTO_TCP &&
	       (segment->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* --- ICMP errors ------------------------------------------------------------------------------------- */
enum {
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER = 12,
	ICMPV6_LAST_ERROR = 4,
	ICMP_HEADER = 8,
};

/* The packet that an ICMP error is about, as far as it is quoted. */
struct quoted {
	__be32 source[4];
	__be32 destination[4];
	__be16 source_port;
	__be16 destination_port;
	__u32 ip; /* where its headers start */
	__u32 l4;
	__u8 protocol;
};

static __always_inline int is_error(__u8 family, const struct segment *segment, __u8 type)
{
	if (family == FAMILY_IPV4)
		return segment->at.protocol == IPPROTO_ICMP &&
		       (type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
			type == ICMP_PARAMETER);
	return segment->at.protocol == IPPROTO_ICMPV6 && type && type <= ICMPV6_LAST_ERROR;
}

static __always_inline int quoted_ipv4(struct __sk_buff *skb, struct quoted *quoted)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, quoted->ip, &ip, sizeof(ip)) < 0 ||
	    (ip.version_ihl & 0xf0) != 0x40 || (ip.version_ihl & 0x0f) < 5 ||
	    ip.fragment & FRAGMENT_OFFSET)
		return 0;
	quoted->source[0] = ip.source;
	quoted->destination[0] = ip.destination;
	quoted->protocol = ip.protocol;
	quoted->l4 = quoted->ip + (ip.version_ihl & 0x0f) * 4;
	return 1;
}

static __always_inline int quoted_ipv6(struct __sk_buff *skb, struct quoted *quoted)
{
	struct fragment6 part;
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, quoted->ip, &ip, sizeof(ip)) < 0 ||
	    (ip.version_class_label & const_bswap32(0xf0000000)) != const_bswap32(0x60000000))
		return 0;
	__builtin_memcpy(quoted->source, ip.source, sizeof(ip.source));
	__builtin_memcpy(quoted->destination, ip.destination, sizeof(ip.destination));
	quoted->protocol = ip.next_header;
	quoted->l4 = quoted->ip + sizeof(ip);
	if (ip.next_header != IPPROTO_FRAGMENT)
		return 1;
	if (bpf_skb_load_bytes(skb, quoted->l4, &part, sizeof(part)) < 0 ||
	    part.offset & FRAGMENT6_OFFSET)
		return 0;
	quoted->protocol = part.next_header;
	quoted->l4 += sizeof(part);
	return 1;
}

/* Whether it is an error about a segment or a datagram. */
static __always_inline int read_quoted(struct __sk_buff *skb, __u8 family,
				       const struct segment *segment, struct quoted *quoted)
{
	__be16 ports[2];
	__u8 type;

	if (bpf_skb_load_bytes(skb, segment->at.l4_offset, &type, sizeof(type)) < 0 ||
	    !is_error(family, segment, type))
		return 0;
	quoted->ip = segment->at.l4_offset + ICMP_HEADER;
	if (!(family == FAMILY_IPV4 ? quoted_ipv4(skb, quoted) : quoted_ipv6(skb, quoted)) ||
	    (quoted->protocol != IPPROTO_TCP && quoted->protocol != IPPROTO_UDP) ||
	    bpf_skb_load_bytes(skb, quoted->l4, ports, sizeof(ports)) < 0)
		return 0;
	quoted->source_port = ports[0];
	quoted->destination_port = ports[1];
	return 1;
}
