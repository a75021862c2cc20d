// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The two ends of the overlay: tc programs of one VXLAN device in collect-metadata mode.
 *
 * What routes send out of the device gets the tunnel key that the ipcache says (contract 3.1, 3.2);
 * what comes in is checked against the known nodes and handed to the stack, whose own routes deliver it. */
#define PROGRAM_FILE FILE_OVERLAY
#include "events.h"
#include "unreachable.h"

enum { TUNNEL_TTL = 64 };

/* Before Linux 5.19 a tunnel key ended here. The kernel takes a short one still, but copies it first. */
enum { OLDER_TUNNEL_KEY = offsetof(struct bpf_tunnel_key, local_ipv4) };

/* A local address of 0 leaves it to the kernel to pick the source by route. */
static __always_inline long set_tunnel(struct __sk_buff *skb, struct bpf_tunnel_key *tunnel)
{
	if (!bpf_skb_set_tunnel_key(skb, tunnel, sizeof(*tunnel), BPF_F_ZERO_CSUM_TX))
		return 0;
	return bpf_skb_set_tunnel_key(skb, tunnel, OLDER_TUNNEL_KEY, BPF_F_ZERO_CSUM_TX);
}

static __always_inline long get_tunnel(struct __sk_buff *skb, struct bpf_tunnel_key *tunnel)
{
	if (!bpf_skb_get_tunnel_key(skb, tunnel, sizeof(*tunnel), 0))
		return 0;
	return bpf_skb_get_tunnel_key(skb, tunnel, OLDER_TUNNEL_KEY, 0);
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

static __always_inline int drop(struct __sk_buff *skb, const struct inner *inner, __u32 sender,
				enum reason reason, enum direction direction)
{
	if (listener(MONITOR_DROPS))
		tell_drop(skb, inner, sender, reason, direction);
	count(reason, direction, FILE_OVERLAY, LINE_PLAIN, skb->len);
	return TC_SHOT;
}

/* Nobody has the destination. The packet is told of before it becomes the answer to its sender. */
static __always_inline int refuse(struct __sk_buff *skb, const struct inner *inner)
{
	__u64 bytes = skb->len;

	if (listener(MONITOR_DROPS))
		tell_drop(skb, inner, 0, DROP_NO_ENDPOINT, EGRESS);
	if (inner->unreachable &&
	    answer_unreachable(skb, inner->destination.family, UNREACHABLE_ADDRESS)) {
		count(DROP_NO_ENDPOINT, EGRESS, FILE_OVERLAY, LINE_UNREACHABLE_SENT, bytes);
		return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	}
	count(DROP_NO_ENDPOINT, EGRESS, FILE_OVERLAY, LINE_PLAIN, bytes);
	return TC_SHOT;
}

/* The identity as it travels: what a VNI must not say is said as world. Contract 3.1, 3.2. */
static __always_inline __u32 wire_identity(struct ipcache_key *source, __u32 mark, enum line *line)
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
	case IDENTITY_HOST: /* or the client of a service, whom nobody knows over there: contract 3.8 */
		return mark & FROM_NODE_MARK ? IDENTITY_WORLD : IDENTITY_REMOTE_NODE;
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
		return drop(skb, &inner, 0, reason, EGRESS);
	remote = bpf_map_lookup_elem(&cilium_ipcache, &inner.destination);
	if (!remote || !remote->tunnel_endpoint)
		return refuse(skb, &inner);
	tunnel.remote_ipv4 = bswap32(remote->tunnel_endpoint);
	tunnel.tunnel_id = wire_identity(&inner.source, skb->mark, &line);
	skb->mark &= ~FROM_NODE_MARK; /* it survives encapsulation: the outer source must stay */
	if (set_tunnel(skb, &tunnel) < 0)
		return drop(skb, &inner, 0, DROP_NO_TUNNEL_KEY, EGRESS);
	clamp(skb, &inner);
	if (listener(MONITOR_ALL))
		tell_trace(skb, &inner, tunnel.tunnel_id, TO_OVERLAY);
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

	if (get_tunnel(skb, &tunnel) < 0) {
		if (skb->mark != UNREACHABLE_MARK)
			return drop(skb, &inner, 0, DROP_NO_TUNNEL_KEY, INGRESS);
		skb->mark = 0;
		bpf_skb_change_type(skb, PACKET_HOST);
		return TC_NEXT;
	}
	reason = trusted(&tunnel);
	if (reason == FORWARDED || listener(MONITOR_DROPS)) {
		enum reason parsed = parse(skb, &inner);

		if (reason == FORWARDED)
			reason = parsed;
	}
	if (reason != FORWARDED)
		return drop(skb, &inner, tunnel.tunnel_id, reason, INGRESS);
	clamp(skb, &inner);
	if (listener(MONITOR_ALL))
		tell_trace(skb, &inner, tunnel.tunnel_id, FROM_OVERLAY);
	bpf_skb_change_type(skb, PACKET_HOST);
	count(FORWARDED, INGRESS, FILE_OVERLAY, LINE_PLAIN, skb->len);
	return TC_NEXT;
}

const char _license[] SEC("license") = "Dual BSD/GPL";
