// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Connections that were translated packet by packet: contract datapath 1.13.
 *
 * Each has two entries. The service entry says which backend the client's packets go to; the egress entry
 * says which service the backend's answers come from. Nobody looks at lifetimes here: the agent walks the
 * maps and deletes what has expired. */
#pragma once
#include "lb_maps.h"
#include "lb.h"
#include "mss.h"
#include "packet.h"

enum { CT_OUT = 0, CT_SERVICE = 4 };
enum {
	CT_RX_CLOSING = 1 << 0,
	CT_TX_CLOSING = 1 << 1,
	CT_LOOPBACK = 1 << 3, /* the backend is where the client is: it would answer past us */
	CT_SEEN_NON_SYN = 1 << 4,
	CT_NODE_PORT = 1 << 5,
	CT_CLOSING = CT_RX_CLOSING | CT_TX_CLOSING,
};
enum { CT_TCP = 8000, CT_TCP_SYN = 60, CT_TCP_CLOSE = 10, CT_OTHER = 60, CT_REPORT = 5 }; /* seconds */
enum { TCP_FIN = 0x01, TCP_RST = 0x04, TCP_ACK = 0x10 };

/* Which way a packet goes, seen from the client. */
enum way { FROM_CLIENT, TO_CLIENT, AT_SERVICE };

/* A packet that may belong to a service. */
struct segment {
	struct inner at;
	__be16 source_port;
	__be16 destination_port;
	__u8 tcp_flags;
	__u8 unsummed; /* a datagram without a checksum */
	__u8 late; /* a later part of a datagram: it has no ports of its own */
};

union ct_tuple {
	struct ct4_tuple v4;
	struct ct6_tuple v6;
};

struct ct_pair {
	const __be32 *daddr;
	const __be32 *saddr;
	__be16 dport;
	__be16 sport;
};

static __always_inline void ct_fill(union ct_tuple *tuple, __u8 family, struct ct_pair pair,
				    __u8 protocol, __u8 flags)
{
	if (family == FAMILY_IPV4) {
		tuple->v4.daddr = pair.daddr[0];
		tuple->v4.saddr = pair.saddr[0];
		tuple->v4.dport = pair.dport;
		tuple->v4.sport = pair.sport;
		tuple->v4.nexthdr = protocol;
		tuple->v4.flags = flags;
		return;
	}
	__builtin_memcpy(tuple->v6.daddr, pair.daddr, sizeof(tuple->v6.daddr));
	__builtin_memcpy(tuple->v6.saddr, pair.saddr, sizeof(tuple->v6.saddr));
	tuple->v6.dport = pair.dport;
	tuple->v6.sport = pair.sport;
	tuple->v6.nexthdr = protocol;
	tuple->v6.flags = flags;
}

static __always_inline struct ct_entry *ct_find(__u8 family, __u8 protocol,
						const union ct_tuple *tuple)
{
	if (family == FAMILY_IPV4)
		return protocol == IPPROTO_TCP ?
			       bpf_map_lookup_elem(&cilium_ct4_global, &tuple->v4) :
			       bpf_map_lookup_elem(&cilium_ct_any4_global, &tuple->v4);
	return protocol == IPPROTO_TCP ? bpf_map_lookup_elem(&cilium_ct6_global, &tuple->v6) :
					 bpf_map_lookup_elem(&cilium_ct_any6_global, &tuple->v6);
}

static __always_inline long ct_put(__u8 family, __u8 protocol, const union ct_tuple *tuple,
				   const struct ct_entry *entry)
{
	if (family == FAMILY_IPV4)
		return protocol == IPPROTO_TCP ?
			       bpf_map_update_elem(&cilium_ct4_global, &tuple->v4, entry, BPF_ANY) :
			       bpf_map_update_elem(&cilium_ct_any4_global, &tuple->v4, entry,
						   BPF_ANY);
	return protocol == IPPROTO_TCP ?
		       bpf_map_update_elem(&cilium_ct6_global, &tuple->v6, entry, BPF_ANY) :
		       bpf_map_update_elem(&cilium_ct_any6_global, &tuple->v6, entry, BPF_ANY);
}

static __always_inline void ct_drop(__u8 family, __u8 protocol, const union ct_tuple *tuple)
{
	if (family == FAMILY_IPV4 && protocol == IPPROTO_TCP)
		bpf_map_delete_elem(&cilium_ct4_global, &tuple->v4);
	else if (family == FAMILY_IPV4)
		bpf_map_delete_elem(&cilium_ct_any4_global, &tuple->v4);
	else if (protocol == IPPROTO_TCP)
		bpf_map_delete_elem(&cilium_ct6_global, &tuple->v6);
	else
		bpf_map_delete_elem(&cilium_ct_any6_global, &tuple->v6);
}

static __always_inline __u32 ct_lifetime(__u8 protocol, __u16 bits)
{
	if (protocol != IPPROTO_TCP)
		return CT_OTHER;
	if ((bits & CT_CLOSING) == CT_CLOSING)
		return CT_TCP_CLOSE;
	return bits & CT_SEEN_NON_SYN ? CT_TCP : CT_TCP_SYN;
}

/* What a segment says about the end of its connection: a side that ends may still be sent to for as long as it
 * takes, and a reset ends both. */
static __always_inline __u16 ct_bits(const struct segment *segment, enum way way)
{
	__u16 bits = 0;

	if (segment->at.protocol != IPPROTO_TCP)
		return 0;
	if (!(segment->tcp_flags & TCP_SYN))
		bits |= CT_SEEN_NON_SYN;
	if (segment->tcp_flags & TCP_RST)
		bits |= CT_CLOSING;
	else if (segment->tcp_flags & TCP_FIN)
		bits |= way == TO_CLIENT ? CT_RX_CLOSING : CT_TX_CLOSING;
	return bits;
}

static __always_inline void ct_count(struct ct_entry *entry, struct __sk_buff *skb)
{
	__sync_fetch_and_add(&entry->packets, 1);
	__sync_fetch_and_add(&entry->bytes, skb->len);
}

/* One more packet of a connection. */
static __always_inline void ct_touch(struct ct_entry *entry, struct __sk_buff *skb,
				     const struct segment *segment, enum way way)
{
	__u32 now = now_seconds(), lifetime;
	__u16 bits = entry->bits | ct_bits(segment, way);

	if (entry->bits != bits)
		entry->bits = bits;
	lifetime = now + ct_lifetime(segment->at.protocol, bits);
	if (entry->lifetime != lifetime)
		entry->lifetime = lifetime;
	if (way == TO_CLIENT) {
		entry->rx_flags |= segment->tcp_flags;
		entry->last_rx_report = now;
	} else {
		entry->tx_flags |= segment->tcp_flags;
		entry->last_tx_report = now;
	}
	ct_count(entry, skb);
}

/* A packet of the other side, at an entry that its packets do not pass: the connection lives, or ends. */
static __always_inline void ct_hear(struct ct_entry *entry, const struct segment *segment, enum way way)
{
	entry->bits |= ct_bits(segment, way) & CT_CLOSING;
	entry->lifetime = now_seconds() + ct_lifetime(segment->at.protocol, entry->bits);
}

/* The first packet of a connection. */
static __always_inline struct ct_entry ct_new(struct __sk_buff *skb, const struct segment *segment,
					      __be16 rev_nat, enum way way)
{
	struct ct_entry entry = {.packets = 1, .bytes = skb->len, .rev_nat = rev_nat};
	__u32 now = now_seconds();

	entry.bits = ct_bits(segment, way);
	entry.lifetime = now + ct_lifetime(segment->at.protocol, entry.bits);
	entry.ifindex = skb->ifindex;
	entry.tx_flags = segment->tcp_flags;
	entry.last_tx_report = now;
	return entry;
}

/* A handshake where a connection was about to end is another connection. */
static __always_inline int ct_begins_anew(const struct ct_entry *entry, const struct segment *segment)
{
	return segment->at.protocol == IPPROTO_TCP &&
	       (segment->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
	       (entry->bits & CT_CLOSING);
}
