// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The two ends of the overlay: tc programs of one VXLAN device in collect-metadata mode.
 *
 * What routes send out of the device gets the tunnel key that the ipcache says (contract 3.1, 3.2);
 * what comes in is checked against the known nodes and handed to the stack, whose own routes deliver it. */
#include "metrics.h"
#include "mss.h"
#include "unreachable.h"

enum {
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_WORLD_IPV4 = 9,
	IDENTITY_WORLD_IPV6 = 10,
	IDENTITY_LAST_RESERVED = 10,
	IDENTITY_END = 1 << 24,
};

/* A tunnel key up to, not including, local_ipv4: the kernel then picks the source by route. */
enum { TUNNEL_KEY_SIZE = offsetof(struct bpf_tunnel_key, local_ipv4), TUNNEL_TTL = 64 };

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
	if ((ip->destination & const_bswap32(0xf0000000)) == const_bswap32(0xe0000000) ||
	    ip->destination == 0xffffffff)
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
	if ((ip->destination[0] & const_bswap32(0xff000000)) == const_bswap32(0xff000000) ||
	    (ip->destination[0] & const_bswap32(0xffc00000)) == const_bswap32(0xfe800000))
		return DROP_UNROUTABLE;
	return FORWARDED;
}

static __always_inline enum reason parse(struct __sk_buff *skb, struct inner *inner)
{
	switch (skb->protocol) {
	case const_bswap16(ETH_P_IP):
		return parse_ipv4(skb, inner);
	case const_bswap16(ETH_P_IPV6):
		return parse_ipv6(skb, inner);
	default:
		return DROP_UNKNOWN_L3;
	}
}

static __always_inline void clamp(struct __sk_buff *skb, const struct inner *inner)
{
	struct cm_state *state = agent_state();
	__u8 *tcp;

	if (inner->protocol != IPPROTO_TCP || !state || !state->mss)
		return;
	tcp = header(skb, inner->l4_offset, TCP_FIXED_SIZE);
	if (tcp && tcp[TCP_FLAGS] & TCP_SYN)
		clamp_mss(skb, inner->l4_offset, (tcp[TCP_OFFSET] >> 4) * 4,
			  state->mss -
				  (inner->source.family == FAMILY_IPV6 ? IPV6_HEADER_EXCESS : 0));
}

static __always_inline int drop(struct __sk_buff *skb, enum reason reason,
				enum direction direction)
{
	count(reason, direction, FILE_OVERLAY, LINE_PLAIN, skb->len);
	return TC_SHOT;
}

/* The identity as it travels: what a VNI must not say is said as world. Contract 3.1, 3.2. */
static __always_inline __u32 wire_identity(struct ipcache_key *source, enum line *line)
{
	struct ipcache_value *known = bpf_map_lookup_elem(&cilium_ipcache, source);
	__u32 identity = known ? known->identity : 0;

	if (!identity) {
		*line = LINE_UNKNOWN_SOURCE;
		return IDENTITY_WORLD;
	}
	if (identity >= IDENTITY_END) {
		*line = LINE_UNSENDABLE;
		return IDENTITY_WORLD;
	}
	switch (identity) {
	case IDENTITY_HOST:
		return IDENTITY_REMOTE_NODE;
	case IDENTITY_WORLD_IPV4:
	case IDENTITY_WORLD_IPV6:
		return IDENTITY_WORLD;
	default:
		return identity;
	}
}

SEC("tc")
int cm_to_overlay(struct __sk_buff *skb)
{
	struct bpf_tunnel_key tunnel = {.tunnel_ttl = TUNNEL_TTL};
	struct inner inner = {};
	struct ipcache_value *remote;
	enum line line = LINE_PLAIN;
	__u64 bytes = skb->len;
	enum reason reason;

	reason = parse(skb, &inner);
	if (reason != FORWARDED)
		return drop(skb, reason, EGRESS);
	remote = bpf_map_lookup_elem(&cilium_ipcache, &inner.destination);
	if (!remote || !remote->tunnel_endpoint) {
		if (inner.unreachable && answer_unreachable(skb, inner.destination.family)) {
			count(DROP_NO_ENDPOINT, EGRESS, FILE_OVERLAY, LINE_UNREACHABLE_SENT, bytes);
			return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
		}
		return drop(skb, DROP_NO_ENDPOINT, EGRESS);
	}
	tunnel.remote_ipv4 = bswap32(remote->tunnel_endpoint);
	tunnel.tunnel_id = wire_identity(&inner.source, &line);
	if (bpf_skb_set_tunnel_key(skb, &tunnel, TUNNEL_KEY_SIZE, BPF_F_ZERO_CSUM_TX) < 0)
		return drop(skb, DROP_NO_TUNNEL_KEY, EGRESS);
	clamp(skb, &inner);
	count(FORWARDED, EGRESS, FILE_OVERLAY, line, bytes);
	return TC_NEXT;
}

/* Whether this node may speak with this identity: one of its own cluster or a shared reserved one. */
static __always_inline enum reason trusted(struct bpf_tunnel_key *tunnel)
{
	__be32 outer = bswap32(tunnel->remote_ipv4);
	struct cm_node *node = bpf_map_lookup_elem(&cm_nodes, &outer);
	__u32 identity = tunnel->tunnel_id;

	if (!node)
		return DROP_INVALID_SOURCE;
	if (identity <= IDENTITY_HOST)
		return DROP_INVALID_IDENTITY;
	if (identity <= IDENTITY_LAST_RESERVED)
		return FORWARDED;
	if (identity < node->identity_low || identity > node->identity_high)
		return DROP_INVALID_CLUSTER;
	return FORWARDED;
}

SEC("tc")
int cm_from_overlay(struct __sk_buff *skb)
{
	struct bpf_tunnel_key tunnel = {};
	struct inner inner = {};
	enum reason reason;

	if (bpf_skb_get_tunnel_key(skb, &tunnel, TUNNEL_KEY_SIZE, 0) < 0) {
		if (skb->mark != UNREACHABLE_MARK)
			return drop(skb, DROP_NO_TUNNEL_KEY, INGRESS);
		skb->mark = 0;
		bpf_skb_change_type(skb, PACKET_HOST);
		return TC_NEXT;
	}
	reason = trusted(&tunnel);
	if (reason == FORWARDED)
		reason = parse(skb, &inner);
	if (reason != FORWARDED)
		return drop(skb, reason, INGRESS);
	clamp(skb, &inner);
	bpf_skb_change_type(skb, PACKET_HOST);
	count(FORWARDED, INGRESS, FILE_OVERLAY, LINE_PLAIN, skb->len);
	return TC_NEXT;
}

const char _license[] SEC("license") = "Dual BSD/GPL";
