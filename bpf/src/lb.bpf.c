// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Services packet by packet, for traffic that no socket program sees: tc programs of the devices that the
 * operator names. Contract 3.5 and 3.8.
 *
 * What comes in for a service gets a backend's address, and the stack's own routes deliver it. What leaves as
 * a backend's answer gets the service's address back. Where the answer would not come by here, the packet is
 * marked, and our postrouting chain gives it this node's address: see docs/decisions. */
#define PROGRAM_FILE FILE_BALANCE
#include "balance.h"
#include "events.h"
#include "rewrite.h"
#include "unreachable.h"

enum { TRANSLATED = 1000 }; /* a verdict of ours */
enum { AGAIN_MARK = 0x2000 }; /* on a packet that enters its bridge again, until it does */

static __always_inline int lose(struct __sk_buff *skb, const struct segment *segment,
				enum reason reason, enum direction direction)
{
	if (listener(MONITOR_DROPS))
		tell_drop(skb, &segment->at, 0, reason, direction);
	count(reason, direction, FILE_BALANCE, LINE_PLAIN, skb->len);
	return TC_SHOT;
}

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
static __always_inline int reject(struct __sk_buff *skb, struct segment *segment, __u8 family,
				  enum reason reason)
{
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

static __always_inline void egress_tuple(union ct_tuple *tuple, __u8 family,
					 const struct segment *segment, const struct target *target)
{
	struct ct_pair pair = {.daddr = segment->at.source.address,
			       .saddr = target->address,
			       .dport = target->port,
			       .sport = segment->source_port};

	ct_fill(tuple, family, pair, segment->at.protocol, CT_OUT);
}

/* A client that speaks to a backend itself, from a port that it has used with a service before. */
static __always_inline void forget_translation(__u8 family, const struct segment *segment)
{
	union ct_tuple tuple = {};
	struct ct_pair pair = {.daddr = segment->at.source.address,
			       .saddr = segment->at.destination.address,
			       .dport = segment->destination_port,
			       .sport = segment->source_port};

	ct_fill(&tuple, family, pair, segment->at.protocol, CT_OUT);
	if (ct_find(family, segment->at.protocol, &tuple))
		ct_drop(family, segment->at.protocol, &tuple);
}

/* Whether the connection goes on with the backend it has. One that is on its way out keeps what it has. */
static __always_inline int goes_on(__u8 family, struct ct_entry *entry,
				   const struct lb_service *service, const struct segment *segment,
				   struct target *target)
{
	return entry->rev_nat == service->rev_nat &&
	       backend_of(family, entry->backend_id, target) &&
	       !ct_begins_anew(entry, segment) &&
	       (target->state == BACKEND_ACTIVE || !is_handshake(segment));
}

/* What the answer is recognised by. */
static __always_inline long remember(struct __sk_buff *skb, __u8 family,
				     const struct segment *segment, const struct target *target,
				     const struct lb_service *service)
{
	__u8 protocol = segment->at.protocol;
	int node_port = service->flags & SERVICE_NODE_PORT;
	union ct_tuple tuple = {};
	struct ct_entry *known, entry;

	egress_tuple(&tuple, family, segment, target);
	known = ct_find(family, protocol, &tuple);
	if (known && known->rev_nat == service->rev_nat && !ct_begins_anew(known, segment) &&
	    (!node_port || (family == FAMILY_IPV4 ?
				    known->frontend[0] == segment->at.destination.address[0] :
				    equal6(known->frontend, segment->at.destination.address)))) {
		ct_touch(known, skb, segment, FROM_CLIENT);
		return 0;
	}
	entry = ct_new(skb, segment, service->rev_nat, FROM_CLIENT);
	if (node_port) {
		entry.bits |= CT_NODE_PORT;
		__builtin_memcpy(entry.frontend, segment->at.destination.address,
				 sizeof(entry.frontend));
	}
	return ct_put(family, protocol, &tuple, &entry);
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

static __always_inline int send_to(struct __sk_buff *skb, __u8 family, struct segment *segment,
				   const struct target *target, const struct lb_service *service,
				   __u16 bits)
{
	struct exchange how = {.old = segment->at.destination.address,
			       .new = target->address,
			       .old_port = segment->destination_port,
			       .new_port = target->port};
	enum line line = LINE_PLAIN;

	if (!comes_back(family, segment, target, service, bits)) {
		skb->mark |= FROM_NODE_MARK;
		line = LINE_FROM_NODE;
	}
	if (!segment->late && rewrite_transport(skb, family, segment, DESTINATION, &how) < 0)
		return lose(skb, segment, DROP_NOT_WRITTEN, INGRESS);
	if (rewrite_address(skb, family, ETHERNET, DESTINATION, &how) < 0)
		return lose(skb, segment, DROP_NOT_WRITTEN, INGRESS);
	count(FORWARDED, INGRESS, FILE_BALANCE, line, skb->len);
	return TRANSLATED;
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
	enum reason reason;
	__u16 bits;

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
		ct_touch(entry, skb, segment, AT_SERVICE);
		bits = entry->bits;
	} else {
		struct ct_entry first;

		if (segment->late || may_be_others(segment, service)) {
			count_lb(FORWARDED, LINE_UNKNOWN_CONNECTION);
			return TC_NEXT;
		}
		reason = select_backend(family, &at, service, segment, &target);
		if (reason != FORWARDED)
			return reject(skb, segment, family, reason);
		if (left_to_others(target.cluster_id)) {
			count_lb(FORWARDED, LINE_STALE_LOCAL);
			return TC_NEXT;
		}
		first = ct_new(skb, segment, service->rev_nat, AT_SERVICE);
		first.backend_id = target.id;
		if (route_to(skb, segment, target.address, family) == ROUTE_BACK)
			first.bits |= CT_LOOPBACK;
		bits = first.bits;
		if (ct_put(family, protocol, &tuple, &first))
			return lose(skb, segment, DROP_NO_ROOM, INGRESS);
	}
	if (!target.port)
		target.port = segment->destination_port;
	stick(family, service, segment, target.id);
	if (remember(skb, family, segment, &target, service))
		return lose(skb, segment, DROP_NO_ROOM, INGRESS);
	return send_to(skb, family, segment, &target, service, bits);
}

/* --- to the client --------------------------------------------------------------------------------------- */
/* The service that the entry's backend answers for; 0 when it is gone. */
static __always_inline int asked_of(__u8 family, const struct ct_entry *entry, __be32 address[4],
				    __be16 *port)
{
	__be16 rev_nat = entry->rev_nat;

	if (!rev_nat)
		return 0;
	if (family == FAMILY_IPV4) {
		struct lb4_reverse_nat *asked =
			bpf_map_lookup_elem(&cilium_lb4_reverse_nat, &rev_nat);

		if (!asked)
			return 0;
		address[0] = entry->bits & CT_NODE_PORT ? entry->frontend[0] : asked->address;
		*port = asked->port;
	} else {
		struct lb6_reverse_nat *asked =
			bpf_map_lookup_elem(&cilium_lb6_reverse_nat, &rev_nat);

		if (!asked)
			return 0;
		if (entry->bits & CT_NODE_PORT)
			__builtin_memcpy(address, entry->frontend, sizeof(entry->frontend));
		else
			__builtin_memcpy(address, asked->address, sizeof(asked->address));
		*port = asked->port;
	}
	return 1;
}

/* The service's own entry sees the client's packets only: it is told when the backend ends, too. */
static __always_inline void tell_service(__u8 family, const struct segment *segment,
					 const struct exchange *how)
{
	union ct_tuple tuple = {};
	struct ct_pair pair = {.daddr = how->new,
			       .saddr = segment->at.destination.address,
			       .dport = segment->destination_port,
			       .sport = how->new_port};
	struct ct_entry *entry;

	if (segment->at.protocol != IPPROTO_TCP || !(segment->tcp_flags & (TCP_FIN | TCP_RST)))
		return;
	ct_fill(&tuple, family, pair, IPPROTO_TCP, CT_SERVICE);
	entry = ct_find(family, IPPROTO_TCP, &tuple);
	if (entry)
		ct_end(entry, segment, TO_CLIENT);
}

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

	ct_fill(&tuple, family, pair, protocol, CT_OUT);
	entry = ct_find(family, protocol, &tuple);
	if (!entry || !asked_of(family, entry, address, &how.new_port))
		return TC_NEXT;
	ct_touch(entry, skb, segment, TO_CLIENT);
	tell_service(family, segment, &how);
	if (!segment->late && rewrite_transport(skb, family, segment, SOURCE, &how) < 0)
		return lose(skb, segment, DROP_NOT_WRITTEN, EGRESS);
	if (rewrite_address(skb, family, ETHERNET, SOURCE, &how) < 0)
		return lose(skb, segment, DROP_NOT_WRITTEN, EGRESS);
	count(FORWARDED, EGRESS, FILE_BALANCE, LINE_PLAIN, skb->len);
	return TC_NEXT;
}

/* --- ICMP errors about what was translated ------------------------------------------------------------- */
/* A router between us and the client speaks of an answer as it left here: the backend must hear of it. */
static __always_inline int error_from_client(struct __sk_buff *skb, __u8 family,
					     struct segment *segment)
{
	__u32 checksum = segment->at.l4_offset + ICMP_CHECKSUM_AT;
	struct target target = {};
	struct quoted quoted = {};
	union ct_tuple tuple = {};
	struct ct_pair pair = {.daddr = quoted.source, .saddr = quoted.destination};
	struct exchange how = {.old = quoted.source, .new = target.address};
	struct ct_entry *entry;

	if (!read_quoted(skb, family, segment, &quoted))
		return TC_NEXT;
	pair.dport = quoted.destination_port;
	pair.sport = quoted.source_port;
	ct_fill(&tuple, family, pair, quoted.protocol, CT_SERVICE);
	entry = ct_find(family, quoted.protocol, &tuple);
	if (!entry || !backend_of(family, entry->backend_id, &target))
		return TC_NEXT;
	how.old_port = quoted.source_port;
	how.new_port = target.port ? target.port : quoted.source_port;
	if (rewrite_quoted(skb, family, checksum, &quoted, SOURCE, &how) < 0 ||
	    rewrite_error(skb, family, checksum, DESTINATION, &how) < 0)
		return lose(skb, segment, DROP_NOT_WRITTEN, INGRESS);
	count(FORWARDED, INGRESS, FILE_BALANCE, LINE_RELATED, skb->len);
	return TRANSLATED;
}

/* Somebody behind us, or this node, speaks of a client's packet as it was sent on: the client knows only the
 * service. */
static __always_inline int error_to_client(struct __sk_buff *skb, __u8 family,
					   struct segment *segment)
{
	__u32 checksum = segment->at.l4_offset + ICMP_CHECKSUM_AT;
	struct quoted quoted = {};
	union ct_tuple tuple = {};
	__be32 address[4] = {};
	struct ct_pair pair = {.daddr = quoted.source, .saddr = quoted.destination};
	struct exchange how = {.old = quoted.destination, .new = address};
	struct ct_entry *entry;
	int by_backend;

	if (!read_quoted(skb, family, segment, &quoted))
		return TC_NEXT;
	pair.dport = quoted.destination_port;
	pair.sport = quoted.source_port;
	ct_fill(&tuple, family, pair, quoted.protocol, CT_OUT);
	entry = ct_find(family, quoted.protocol, &tuple);
	if (!entry || !asked_of(family, entry, address, &how.new_port))
		return TC_NEXT;
	how.old_port = quoted.destination_port;
	by_backend = family == FAMILY_IPV4 ?
			     segment->at.source.address[0] == quoted.destination[0] :
			     equal6(segment->at.source.address, quoted.destination);
	if (rewrite_quoted(skb, family, checksum, &quoted, DESTINATION, &how) < 0 ||
	    (by_backend && rewrite_error(skb, family, checksum, SOURCE, &how) < 0))
		return lose(skb, segment, DROP_NOT_WRITTEN, EGRESS);
	count(FORWARDED, EGRESS, FILE_BALANCE, LINE_RELATED, skb->len);
	return TC_NEXT;
}

/* --- the two sides of a device ------------------------------------------------------------------------- */
static __always_inline int ingress(struct __sk_buff *skb, __u8 family)
{
	struct segment segment = {};

	if ((family == FAMILY_IPV4 ? parse_ipv4(skb, &segment.at) :
				     parse_ipv6(skb, &segment.at)) != FORWARDED)
		return TC_NEXT;
	if (read_ports(skb, family, &segment))
		return balance(skb, family, &segment);
	if (segment.late)
		return TC_NEXT;
	return error_from_client(skb, family, &segment);
}

static __always_inline int egress(struct __sk_buff *skb, __u8 family)
{
	struct segment segment = {};

	if ((family == FAMILY_IPV4 ? parse_ipv4(skb, &segment.at) :
				     parse_ipv6(skb, &segment.at)) != FORWARDED)
		return TC_NEXT;
	if (read_ports(skb, family, &segment))
		return answer(skb, family, &segment);
	if (segment.late)
		return TC_NEXT;
	return error_to_client(skb, family, &segment);
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
