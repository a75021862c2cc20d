// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The two entries of a translated connection: how they are found, made, and kept apart from others'. */
#pragma once
#include "balance.h"
#include "rewrite.h"

/* By what a backend's answer is recognised. */
static __always_inline void egress_tuple(union ct_tuple *tuple, __u8 family,
					 const struct segment *segment, const struct target *target,
					 __be16 client_port)
{
	struct ct_pair pair = {.daddr = segment->at.source.address,
			       .saddr = target->address,
			       .dport = target->port,
			       .sport = client_port};

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

/* Whether the entry recognises answers for this service, under the address that was named, to this client's
 * port: `client_port` as the entry says it. */
static __always_inline int answers_for(__u8 family, const struct ct_entry *known,
				       const struct lb_service *service,
				       const struct segment *segment, __be16 client_port)
{
	if (known->rev_nat != service->rev_nat || known->client_port != client_port)
		return 0;
	if (!(service->flags & SERVICE_NODE_PORT))
		return 1;
	return family == FAMILY_IPV4 ?
		       known->frontend[0] == segment->at.destination.address[0] :
		       equal6(known->frontend, segment->at.destination.address);
}

/* The client's own port, as an entry says it that has the client at `port`. */
static __always_inline __be16 other_port(const struct segment *segment, __be16 port)
{
	return port == segment->source_port ? 0 : segment->source_port;
}

enum { PORT_TRIES = 4, FIRST_OTHER_PORT = 32768, OTHER_PORTS = 32768 };

/* The client's port as the backend shall see it. Of two connections that differ in the service only, the
 * backend would see one: the second gets a port of its own. Out of line, for a stack of its own. */
static __noinline int port_for(const struct segment *segment, const struct target *target,
			       const struct lb_service *service, __u32 family)
{
	__u32 now = now_seconds(), number = bpf_get_prandom_u32();
	__be16 port = segment->source_port;

	for (__u32 tries = 0; tries < PORT_TRIES; tries++) {
		union ct_tuple tuple = {};
		struct ct_entry *known;

		egress_tuple(&tuple, family, segment, target, port);
		known = ct_find(family, segment->at.protocol, &tuple);
		if (!known || known->lifetime < now ||
		    answers_for(family, known, service, segment, other_port(segment, port)))
			return port;
		port = bswap16(FIRST_OTHER_PORT + (number + tries) % OTHER_PORTS);
	}
	return segment->source_port;
}

/* What the answer is recognised by. */
static __always_inline long remember(struct __sk_buff *skb, __u8 family,
				     const struct segment *segment, const struct target *target,
				     const struct lb_service *service, __be16 port)
{
	__be16 client_port = other_port(segment, port);
	__u8 protocol = segment->at.protocol;
	union ct_tuple tuple = {};
	struct ct_entry *known, entry;

	egress_tuple(&tuple, family, segment, target, port);
	known = ct_find(family, protocol, &tuple);
	if (known && answers_for(family, known, service, segment, client_port) &&
	    !ct_begins_anew(known, segment)) {
		ct_touch(known, skb, segment, FROM_CLIENT);
		return 0;
	}
	entry = ct_new(skb, segment, service->rev_nat, FROM_CLIENT);
	entry.client_port = client_port;
	if (service->flags & SERVICE_NODE_PORT) {
		entry.bits |= CT_NODE_PORT;
		__builtin_memcpy(entry.frontend, segment->at.destination.address,
				 sizeof(entry.frontend));
	}
	return ct_put(family, protocol, &tuple, &entry);
}

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

/* The service's own entry sees the client's packets only: it is told of the backend's once in a while, and when
 * the backend ends. */
static __always_inline void tell_service(__u8 family, const struct segment *segment,
					 const struct exchange *how, __be16 client_port)
{
	union ct_tuple tuple = {};
	struct ct_pair pair = {.daddr = how->new,
			       .saddr = segment->at.destination.address,
			       .dport = client_port,
			       .sport = how->new_port};
	struct ct_entry *entry;

	ct_fill(&tuple, family, pair, segment->at.protocol, CT_SERVICE);
	entry = ct_find(family, segment->at.protocol, &tuple);
	if (entry)
		ct_hear(entry, segment, TO_CLIENT);
}
