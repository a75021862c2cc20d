// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Which service a packet asks for, and which backend it gets: contract datapath 3.5, 3.6 and 3.8. */
#pragma once
#include "conntrack.h"
#include "jhash.h"
#include "lb4.h"
#include "lb6.h"

enum { SEED4 = 0x71dcda46 };
#define SEED6 0x92505688U
enum { BACKEND_ACTIVE = 0 };
enum { FIRST_OF_A_CLUSTER = 256 }; /* identities of pods begin here */

union frontend {
	struct lb4_key v4;
	struct lb6_key v6;
};

/* A backend, whatever its family. */
struct target {
	__u32 id;
	__be32 address[4];
	__be16 port;
	__u16 cluster_id;
	__u8 state;
};

static __always_inline struct lb_service *service_at(__u8 family, union frontend *at)
{
	if (family == FAMILY_IPV4)
		return bpf_map_lookup_elem(&cilium_lb4_services_v2, &at->v4);
	return bpf_map_lookup_elem(&cilium_lb6_services_v2, &at->v6);
}

static __always_inline __u32 known_as(struct ipcache_key *address, __be32 *endpoint)
{
	struct ipcache_value *known = bpf_map_lookup_elem(&cilium_ipcache, address);

	*endpoint = known ? known->tunnel_endpoint : 0;
	return known ? known->identity : 0;
}

/* Whether it is this node, or a pod on it: what it is sent comes, and what it answers goes, through here. */
static __always_inline int is_here(struct ipcache_key *address)
{
	__be32 endpoint;
	__u32 identity = known_as(address, &endpoint);

	return !endpoint && (identity == IDENTITY_HOST ||
			     (identity >= FIRST_OF_A_CLUSTER && identity < IDENTITY_END));
}

static __always_inline int is_this_node(struct ipcache_key *address)
{
	__be32 endpoint;

	return known_as(address, &endpoint) == IDENTITY_HOST;
}

static __always_inline int is_own_node(__u8 family, const struct ipcache_key *address)
{
	return family == FAMILY_IPV4 ? lb4_own_node(address->address[0]) :
				       lb6_own_node(address->address);
}

static __always_inline void fill_frontend(union frontend *at, __u8 family,
					  const struct segment *segment)
{
	if (family == FAMILY_IPV4) {
		at->v4.address = segment->at.destination.address[0];
		at->v4.port = segment->destination_port;
		at->v4.proto = segment->at.protocol;
		return;
	}
	copy6(at->v6.address, segment->at.destination.address);
	at->v6.port = segment->destination_port;
	at->v6.proto = segment->at.protocol;
}

static __always_inline void every_address(union frontend *at, __u8 family)
{
	if (family == FAMILY_IPV4)
		at->v4.address = 0;
	else
		__builtin_memset(at->v6.address, 0, sizeof(at->v6.address));
}

static __always_inline void inside(union frontend *at, __u8 family)
{
	if (family == FAMILY_IPV4)
		at->v4.scope = SCOPE_INTERNAL;
	else
		at->v6.scope = SCOPE_INTERNAL;
}

/* Where the node's routes would send what has come in: back, by the device it came from, to another one, or
 * to nobody, which is also what the node itself takes. */
enum route { ROUTE_ON, ROUTE_BACK, ROUTE_NOWHERE };

/* Out of line, for a stack of its own. */
static __noinline int route_to(struct __sk_buff *skb, const struct segment *segment,
			       const __be32 destination[4], __u32 family)
{
	struct bpf_fib_lookup way = {.family = family == FAMILY_IPV4 ? AF_INET : AF_INET6};
	long found;

	way.ifindex = skb->ifindex;
	__builtin_memcpy(way.source, segment->at.source.address, sizeof(way.source));
	__builtin_memcpy(way.destination, destination, sizeof(way.destination));
	found = bpf_fib_lookup(skb, &way, sizeof(way), 0);
	if (found == FIB_SUCCESS || found == FIB_NO_NEIGHBOUR)
		return way.ifindex == skb->ifindex ? ROUTE_BACK : ROUTE_ON;
	return found >= FIB_BLACKHOLE && found <= FIB_NOT_FORWARDED ? ROUTE_NOWHERE : ROUTE_ON;
}

/* The service that is meant, and where its slots are. A node port is on this node's own addresses; of two
 * scopes, a pod's is the inner one. Any address may be written into a Service as an external one: it counts
 * where the network has sent the packet here on purpose, and not through here to somebody else. */
static __always_inline struct lb_service *asked_for(struct __sk_buff *skb, __u8 family,
						    union frontend *at, struct segment *segment)
{
	struct lb_service *service;

	fill_frontend(at, family, segment);
	service = service_at(family, at);
	if (service) {
		if (service->flags & SERVICE_EXTERNAL_IP &&
		    !is_own_node(family, &segment->at.destination) &&
		    route_to(skb, segment, segment->at.destination.address, family) == ROUTE_ON)
			return NULL;
	} else {
		if (!may_be_node_port(segment->destination_port) ||
		    !is_this_node(&segment->at.destination))
			return NULL;
		every_address(at, family);
		service = service_at(family, at);
	}
	if (service && service->flags & SERVICE_TWO_SCOPES && is_here(&segment->at.source)) {
		inside(at, family);
		service = service_at(family, at);
	}
	return service;
}

/* Whether the service is open to the client: its ranges are a list of whom it serves. Contract 1.7. */
static __noinline int may_ask(const struct segment *segment, __u32 family, __u32 rev_nat)
{
	struct lb4_source_range four = {.rev_nat = rev_nat};
	struct lb6_source_range six = {.rev_nat = rev_nat};

	if (family == FAMILY_IPV4) {
		four.prefixlen = SOURCE_RANGE_STATIC_BITS + 32;
		four.address = segment->at.source.address[0];
		return bpf_map_lookup_elem(&cilium_lb4_source_range, &four) != NULL;
	}
	six.prefixlen = SOURCE_RANGE_STATIC_BITS + 128;
	__builtin_memcpy(six.address, segment->at.source.address, sizeof(six.address));
	return bpf_map_lookup_elem(&cilium_lb6_source_range, &six) != NULL;
}

static __always_inline int backend_of(__u8 family, __u32 id, struct target *target)
{
	if (family == FAMILY_IPV4) {
		struct lb4_backend *found = lb4_backend(id);

		if (!found)
			return 0;
		target->address[0] = found->address;
		target->port = found->port;
		target->cluster_id = found->cluster_id;
		target->state = found->state;
	} else {
		struct lb6_backend *found = lb6_backend(id);

		if (!found)
			return 0;
		copy6(target->address, found->address);
		target->port = found->port;
		target->cluster_id = found->cluster_id;
		target->state = found->state;
	}
	target->id = id;
	return 1;
}

/* Packets of one flow agree on a number, on every node: over the tuple in the order of the connection
 * table, without the service's address. */
static __always_inline __u32 flow_number(__u8 family, const struct segment *segment)
{
	__u32 ports = (__u32)segment->source_port << 16 | segment->destination_port;

	if (family == FAMILY_IPV4)
		return jhash_3words(segment->at.source.address[0], ports, segment->at.protocol,
				    SEED4);
	return jhash_address(segment->at.source.address, ports, segment->at.protocol, SEED6);
}

static __always_inline __u32 pick(__u8 family, union frontend *at, const struct lb_service *service,
				  const struct segment *segment)
{
	__u32 number = flow_number(family, segment), id;

	if (family == FAMILY_IPV4) {
		id = pick_from_table(&cilium_lb4_maglev, service->rev_nat, number);
		return id ? id : lb4_pick_slot(&at->v4, service, number);
	}
	id = pick_from_table(&cilium_lb6_maglev, service->rev_nat, number);
	return id ? id : lb6_pick_slot(&at->v6, service, number);
}

/* --- session affinity by the client's address ---------------------------------------------------- */
static __always_inline struct lb4_affinity_key client4(const struct segment *segment, __be16 rev_nat)
{
	struct lb4_affinity_key client = {.client = segment->at.source.address[0],
					  .rev_nat = rev_nat};

	return client;
}

static __always_inline struct lb6_affinity_key client6(const struct segment *segment, __be16 rev_nat)
{
	struct lb6_affinity_key client = {.rev_nat = rev_nat};

	__builtin_memcpy(client.client, segment->at.source.address, sizeof(client.client));
	return client;
}

/* The backend this client had before and may keep, or 0. */
static __always_inline __u32 sticky(__u8 family, const struct lb_service *service,
				    const struct segment *segment)
{
	struct lb_affinity_value *before;

	if (family == FAMILY_IPV4) {
		struct lb4_affinity_key client = client4(segment, service->rev_nat);

		before = bpf_map_lookup_elem(&cilium_lb4_affinity, &client);
	} else {
		struct lb6_affinity_key client = client6(segment, service->rev_nat);

		before = bpf_map_lookup_elem(&cilium_lb6_affinity, &client);
	}
	return before && affinity_holds(before, service) ? before->backend_id : 0;
}

static __always_inline void stick(__u8 family, const struct lb_service *service,
				  const struct segment *segment, __u32 id)
{
	struct lb_affinity_value now = {.last_used = now_seconds(), .backend_id = id};

	if (!(service->flags & SERVICE_SESSION_AFFINITY))
		return;
	if (family == FAMILY_IPV4) {
		struct lb4_affinity_key client = client4(segment, service->rev_nat);

		bpf_map_update_elem(&cilium_lb4_affinity, &client, &now, BPF_ANY);
	} else {
		struct lb6_affinity_key client = client6(segment, service->rev_nat);

		bpf_map_update_elem(&cilium_lb6_affinity, &client, &now, BPF_ANY);
	}
}

/* A backend for a new connection, or the reason why there is none. */
static __always_inline enum reason select_backend(__u8 family, union frontend *at,
						  const struct lb_service *service,
						  const struct segment *segment,
						  struct target *target)
{
	__u32 id = 0;

	if (!service->count)
		return DROP_NO_SERVICE;
	if (service->flags & SERVICE_SESSION_AFFINITY)
		id = sticky(family, service, segment);
	if (id && backend_of(family, id, target))
		return FORWARDED;
	id = pick(family, at, service, segment);
	return id && backend_of(family, id, target) ? FORWARDED : DROP_NO_SERVICE;
}
