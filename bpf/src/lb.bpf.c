// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Services packet by packet, for traffic that no socket program sees: tc programs of the devices that the
 * operator names. Contract 3.5 and 3.8.
 *
 * What comes in for a service gets a backend's address, and the stack's own routes deliver it. What leaves as
 * a backend's answer gets the service's address back. Where the answer would not come by here, the packet is
 * marked, and our postrouting chain gives it this node's address: see docs/decisions. */
#define PROGRAM_FILE FILE_BALANCE
#include "related.h"

/* --- from the client ------------------------------------------------------------------------------------- */
static __always_inline long swap_ethernet(struct __sk_buff *skb)
{
	struct ethhdr old, new;

	if (bpf_skb_load_bytes(skb, 0, &old, sizeof(old)) < 0)
		return -1;
	__builtin_memcpy(new.destination, old.source, sizeof(new.destination));
	__builtin_memcpy(new.source, old.destination, sizeof(new.source));
	new.protocol = old.protocol;
	return bpf_skb_store_bytes(skb, 0, &new, sizeof(new), 0);
}

/* The service has nobody: its client is told, by the way it came. With stale facts others may know better. */
static __always_inline int reject(struct __sk_buff *skb, __u8 family, struct segment *segment)
{
	enum reason reason = DROP_NO_SERVICE;
	__u64 bytes = skb->len;

	if (facts_are_stale(agent_state())) {
		count_lb(FORWARDED, LINE_STALE_LOCAL);
		return TC_NEXT;
	}
	if (listener(MONITOR_DROPS))
		tell_drop(skb, &segment->at, 0, reason, INGRESS);
	if (segment->at.unreachable && !segment->late &&
	    answer_unreachable(skb, family, UNREACHABLE_PORT) && !swap_ethernet(skb)) {
		skb->mark = 0;
		count(reason, INGRESS, FILE_BALANCE, LINE_UNREACHABLE_SENT, bytes);
		return bpf_redirect(skb->ifindex, 0);
	}
	count(reason, INGRESS, FILE_BALANCE, LINE_PLAIN, bytes);
	return TC_SHOT;
}

/* Whether a segment of a connection that we have not seen begin may be somebody else's: of who served before
 * us (whoever never stamps facts is alone), or, at a node's own address, the answer to the node itself. */
static __always_inline int may_be_others(const struct segment *segment,
					 const struct lb_service *service)
{
	struct cm_state *state = agent_state();

	return segment->at.protocol == IPPROTO_TCP && !is_handshake(segment) &&
	       ((state && state->stamp) || service->flags & SERVICE_NODE_PORT);
}

static __always_inline int comes_back(__u8 family, struct segment *segment,
				      const struct target *target,
				      const struct lb_service *service, __u16 bits)
{
	struct ipcache_key backend = {.family = family};

	backend.prefixlen = IPCACHE_STATIC_BITS + (family == FAMILY_IPV4 ? 32 : 128);
	__builtin_memcpy(backend.address, target->address, sizeof(backend.address));
	if (family == FAMILY_IPV4 ? backend.address[0] == segment->at.source.address[0] :
				    equal6(backend.address, segment->at.source.address))
		return 0; /* it would answer itself */
	if (bits & CT_LOOPBACK)
		return 0;
	return service->flags & SERVICE_EXTERNAL_LOCAL || is_here(&backend) ||
	       is_here(&segment->at.source);
}

/* A backend without a port has the service's. */
static __always_inline void keep_port(struct target *target, const struct segment *segment)
{
	if (!target->port)
		target->port = segment->destination_port;
}

/* How a connection goes on: bits of its entry, and the client's port as the backend sees it. */
struct path {
	__u16 bits;
	__be16 client_port;
};

static __always_inline int send_to(struct __sk_buff *skb, __u8 family, struct segment *segment,
				   const struct target *target, const struct lb_service *service,
				   struct path path)
{
	struct exchange how = {.old = segment->at.destination.address,
			       .new = target->address,
			       .old_port = segment->destination_port,
			       .new_port = target->port};
	enum line line = LINE_PLAIN;

	if (!comes_back(family, segment, target, service, path.bits)) {
		skb->mark |= FROM_NODE_MARK;
		line = LINE_FROM_NODE;
	}
	if (!segment->late && (rewrite_transport(skb, family, segment, DESTINATION, &how) < 0 ||
			       rewrite_port(skb, segment, SOURCE, segment->source_port,
					    path.client_port) < 0))
		return lose(skb, segment, DROP_NOT_WRITTEN, INGRESS);
	if (rewrite_address(skb, family, ETHERNET, DESTINATION, &how) < 0)
		return lose(skb, segment, DROP_NOT_WRITTEN, INGRESS);
	count(FORWARDED, INGRESS, FILE_BALANCE, line, skb->len);
	return TRANSLATED;
}

/* A backend for what nobody knows yet; otherwise who shall have it. */
static __always_inline int find_backend(__u8 family, union frontend *at,
					const struct lb_service *service,
					const struct segment *segment, struct target *target)
{
	if (segment->late || may_be_others(segment, service)) {
		count_lb(FORWARDED, LINE_UNKNOWN_CONNECTION);
		return TC_NEXT;
	}
	if (select_backend(family, at, service, segment, target) != FORWARDED)
		return NOBODY_SERVES;
	if (left_to_others(target->cluster_id)) {
		count_lb(FORWARDED, LINE_STALE_LOCAL);
		return TC_NEXT;
	}
	keep_port(target, segment);
	return TRANSLATED;
}

/* The service's entry of a new connection. */
static __always_inline long begin(struct __sk_buff *skb, __u8 family, struct segment *segment,
				  const struct target *target, const struct lb_service *service,
				  const union ct_tuple *tuple, struct path *path)
{
	struct ct_entry first = ct_new(skb, segment, service->rev_nat, AT_SERVICE);

	first.backend_id = target->id;
	if (route_to(skb, segment, target->address, family) == ROUTE_BACK)
		first.bits |= CT_LOOPBACK;
	path->bits = first.bits;
	path->client_port = port_for(segment, target, service, family);
	if (path->client_port != segment->source_port)
		first.client_port = path->client_port;
	return ct_put(family, segment->at.protocol, tuple, &first);
}

static __always_inline int balance(struct __sk_buff *skb, __u8 family, struct segment *segment)
{
	__u8 protocol = segment->at.protocol;
	struct target target = {};
	union frontend at = {};
	union ct_tuple tuple = {};
	struct lb_service *service = asked_for(skb, family, &at, segment);
	struct ct_pair pair = {.daddr = segment->at.destination.address,
			       .saddr = segment->at.source.address,
			       .dport = segment->source_port,
			       .sport = segment->destination_port};
	struct ct_entry *entry;
	struct path path = {.client_port = segment->source_port};
	int verdict;

	if (!service) {
		if (is_handshake(segment))
			forget_translation(family, segment);
		return TC_NEXT;
	}
	if (service->flags & SERVICE_SOURCE_RANGE && !may_ask(segment, family, service->rev_nat))
		return lose(skb, segment, DROP_SOURCE_RANGE, INGRESS);
	ct_fill(&tuple, family, pair, protocol, CT_SERVICE);
	entry = ct_find(family, protocol, &tuple);
	if (entry && goes_on(family, entry, service, segment, &target)) {
		if ((protocol != IPPROTO_TCP || is_handshake(segment)) &&
		    left_to_others(target.cluster_id)) {
			count_lb(FORWARDED, LINE_STALE_LOCAL);
			return TC_NEXT;
		}
		keep_port(&target, segment);
		ct_touch(entry, skb, segment, AT_SERVICE);
		path.bits = entry->bits;
		if (entry->client_port)
			path.client_port = entry->client_port;
	} else {
		verdict = find_backend(family, &at, service, segment, &target);
		if (verdict != TRANSLATED)
			return verdict;
		if (begin(skb, family, segment, &target, service, &tuple, &path))
			return lose(skb, segment, DROP_NO_ROOM, INGRESS);
	}
	stick(family, service, segment, target.id);
	if (remember(skb, family, segment, &target, service, path.client_port))
		return lose(skb, segment, DROP_NO_ROOM, INGRESS);
	return send_to(skb, family, segment, &target, service, path);
}

/* --- to the client --------------------------------------------------------------------------------------- */
static __always_inline int answer(struct __sk_buff *skb, __u8 family, struct segment *segment)
{
	__u8 protocol = segment->at.protocol;
	union ct_tuple tuple = {};
	__be32 address[4] = {};
	struct ct_pair pair = {.daddr = segment->at.destination.address,
			       .saddr = segment->at.source.address,
			       .dport = segment->source_port,
			       .sport = segment->destination_port};
	struct exchange how = {.old = segment->at.source.address,
			       .new = address,
			       .old_port = segment->source_port};
	struct ct_entry *entry;
	__be16 client_port = segment->destination_port;
	int news;

	ct_fill(&tuple, family, pair, protocol, CT_OUT);
	entry = ct_find(family, protocol, &tuple);
	if (!entry || !asked_of(family, entry, address, &how.new_port))
		return TC_NEXT;
	news = entry->last_rx_report + CT_REPORT <= now_seconds() ||
	       segment->tcp_flags & (TCP_FIN | TCP_RST);
	ct_touch(entry, skb, segment, TO_CLIENT);
	if (entry->client_port)
		client_port = entry->client_port;
	if (news)
		tell_service(family, segment, &how, client_port);
	if (!segment->late && (rewrite_transport(skb, family, segment, SOURCE, &how) < 0 ||
			       rewrite_port(skb, segment, DESTINATION, segment->destination_port,
					    client_port) < 0))
		return lose(skb, segment, DROP_NOT_WRITTEN, EGRESS);
	if (rewrite_address(skb, family, ETHERNET, SOURCE, &how) < 0)
		return lose(skb, segment, DROP_NOT_WRITTEN, EGRESS);
	count(FORWARDED, EGRESS, FILE_BALANCE, LINE_PLAIN, skb->len);
	return TC_NEXT;
}

ABOUT(reject4, reject, FAMILY_IPV4)
ABOUT(reject6, reject, FAMILY_IPV6)
ABOUT(read_ports4, read_ports, FAMILY_IPV4)
ABOUT(read_ports6, read_ports, FAMILY_IPV6)
ABOUT(balance4, balance, FAMILY_IPV4)
ABOUT(balance6, balance, FAMILY_IPV6)
ABOUT(answer4, answer, FAMILY_IPV4)
ABOUT(answer6, answer, FAMILY_IPV6)

/* --- the two sides of a device ------------------------------------------------------------------------- */
static __always_inline int ingress(struct __sk_buff *skb, __u8 family)
{
	struct segment segment = {};
	int verdict;

	if ((family == FAMILY_IPV4 ? parse_ipv4(skb, &segment.at) :
				     parse_ipv6(skb, &segment.at)) != FORWARDED)
		return TC_NEXT;
	if (ON(family, read_ports, skb, &segment)) {
		verdict = ON(family, balance, skb, &segment);
		return verdict == NOBODY_SERVES ? ON(family, reject, skb, &segment) : verdict;
	}
	if (segment.late)
		return TC_NEXT;
	return ON(family, error_from_client, skb, &segment);
}

static __always_inline int egress(struct __sk_buff *skb, __u8 family)
{
	struct segment segment = {};

	if ((family == FAMILY_IPV4 ? parse_ipv4(skb, &segment.at) :
				     parse_ipv6(skb, &segment.at)) != FORWARDED)
		return TC_NEXT;
	if (ON(family, read_ports, skb, &segment))
		return ON(family, answer, skb, &segment);
	if (segment.late)
		return TC_NEXT;
	return ON(family, error_to_client, skb, &segment);
}

/* Out of line, one a family: each has a stack of its own. */
#define OUT_OF_LINE(name, side, family)                                                      \
	static __noinline int name(struct __sk_buff *skb)                                    \
	{                                                                                    \
		return side(skb, family);                                                    \
	}
OUT_OF_LINE(ingress4, ingress, FAMILY_IPV4)
OUT_OF_LINE(ingress6, ingress, FAMILY_IPV6)
OUT_OF_LINE(egress4, egress, FAMILY_IPV4)
OUT_OF_LINE(egress6, egress, FAMILY_IPV6)

/* A tagged frame is for a device on top of this one, which has to be named itself. */
static __always_inline __u32 kind(const struct __sk_buff *skb)
{
	return skb->vlan_present ? 0 : skb->protocol;
}

static __always_inline int receive(struct __sk_buff *skb)
{
	if (skb->pkt_type != PACKET_HOST) /* somebody else's, seen because the device listens to all */
		return TC_NEXT;
	switch (kind(skb)) {
	case const_bswap16(ETH_P_IP):
		return ingress4(skb);
	case const_bswap16(ETH_P_IPV6):
		return ingress6(skb);
	default:
		return TC_NEXT;
	}
}

SEC("tc")
int cm_lb_ingress(struct __sk_buff *skb)
{
	int verdict = receive(skb);

	return verdict == TRANSLATED ? TC_NEXT : verdict;
}

/* Where netfilter looks into bridges (br_netfilter, which Kubernetes asks for), it knows the packet already,
 * under the address that it had. What is translated enters the bridge anew, unknown to anybody. */
SEC("tc")
int cm_lb_bridge(struct __sk_buff *skb)
{
	int verdict;

	if (skb->mark & AGAIN_MARK) {
		skb->mark &= ~AGAIN_MARK;
		bpf_skb_change_type(skb, PACKET_HOST); /* whichever of the bridge's addresses it had */
		return TC_NEXT;
	}
	verdict = receive(skb);
	if (verdict != TRANSLATED)
		return verdict;
	skb->mark |= AGAIN_MARK;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

SEC("tc")
int cm_lb_egress(struct __sk_buff *skb)
{
	switch (kind(skb)) {
	case const_bswap16(ETH_P_IP):
		return egress4(skb);
	case const_bswap16(ETH_P_IPV6):
		return egress6(skb);
	default:
		return TC_NEXT;
	}
}

const char _license[] SEC("license") = "Dual BSD/GPL";
