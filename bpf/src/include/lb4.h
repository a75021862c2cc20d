// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Services of IPv4: from service address to backend, and back. lb6.h is its twin. */
#pragma once
#include "lb.h"

static __always_inline struct lb_service *lb4_service(struct lb4_key *key)
{
	struct lb_service *service = bpf_map_lookup_elem(&cilium_lb4_services_v2, key);

	if (service && service->flags & SERVICE_TWO_SCOPES) {
		key->scope = SCOPE_INTERNAL;
		service = bpf_map_lookup_elem(&cilium_lb4_services_v2, key);
	}
	return service;
}

/* Whether it is an address of a node of our own cluster. */
static __always_inline int lb4_own_node(__be32 address)
{
	struct ipcache_key key = {.prefixlen = IPCACHE_STATIC_BITS + 32,
				  .family = FAMILY_IPV4,
				  .address = {address}};
	struct ipcache_value *known = bpf_map_lookup_elem(&cilium_ipcache, &key);
	struct cm_state *state = agent_state();
	struct cm_node *node;

	if (!known || known->identity != IDENTITY_REMOTE_NODE)
		return known && known->identity == IDENTITY_HOST;
	node = bpf_map_lookup_elem(&cm_nodes, &address);
	return node && state && node->cluster_id == state->cluster_id;
}

static __always_inline int lb4_unspecified(__be32 address)
{
	return !address;
}

static __always_inline int lb4_loopback(void *ctx, __be32 address)
{
	return (address & const_bswap32(0xff000000)) == const_bswap32(0x7f000000) && is_on_host(ctx);
}

/* The service that is meant: by its own address, or by a node's and a node port. Any address may be
 * written into a Service as an external one, so these count only where they are a node's. Contract 3.7. */
static __always_inline struct lb_service *lb4_find(void *ctx, struct lb4_key *key)
{
	struct lb_service *service;

	if (lb4_unspecified(key->address) && !is_on_host(ctx))
		return NULL; /* it means the pod itself, not every node */
	service = lb4_service(key);
	if (service && service->flags & SERVICE_SOURCE_RANGE)
		return NULL; /* a socket does not say where it will be seen to come from */
	if (service)
		return service->flags & SERVICE_EXTERNAL_IP && !lb4_own_node(key->address) ?
			       NULL :
			       service;
	if (!may_be_node_port(key->port) ||
	    !(lb4_loopback(ctx, key->address) || lb4_own_node(key->address)))
		return NULL;
	key->address = 0;
	return lb4_service(key);
}

static __always_inline __u32 lb4_pick_slot(struct lb4_key *key, const struct lb_service *service,
					   __u32 number)
{
	struct lb_service *slot;

	key->slot = number % service->count + 1;
	slot = bpf_map_lookup_elem(&cilium_lb4_services_v2, key);
	key->slot = 0;
	if (!slot || !slot->backend_id)
		return 0;
	count_lb(FORWARDED, LINE_SELECTED_BY_SLOT);
	return slot->backend_id;
}

static __always_inline __u32 lb4_pick(void *ctx, struct lb4_key *key, const struct lb_service *service)
{
	__u32 number = draw(ctx, key->proto);
	__u32 id = pick_from_table(&cilium_lb4_maglev, service->rev_nat, number);

	return id ? id : lb4_pick_slot(key, service, number);
}

static __always_inline struct lb4_backend *lb4_backend(__u32 id)
{
	return bpf_map_lookup_elem(&cilium_lb4_backends_v3, &id);
}

/* A network namespace is a client; sockets of one pod share it. */
static __always_inline void lb4_client(struct lb4_affinity_key *client, void *ctx,
				       const struct lb_service *service)
{
	__builtin_memset(client, 0, sizeof(*client));
	client->client = bpf_get_netns_cookie(ctx);
	client->rev_nat = service->rev_nat;
	client->by_cookie = 1;
}

/* The backend this client was sent to before, if it may still be used. */
static __always_inline struct lb4_backend *lb4_sticky(void *ctx, const struct lb_service *service,
						      __u32 *id)
{
	struct lb4_affinity_key client;
	struct lb_affinity_value *sticky;

	lb4_client(&client, ctx, service);
	sticky = bpf_map_lookup_elem(&cilium_lb4_affinity, &client);
	if (!sticky || !affinity_holds(sticky, service))
		return NULL;
	*id = sticky->backend_id;
	return lb4_backend(*id);
}

static __always_inline void lb4_stick(void *ctx, const struct lb_service *service, __u32 id)
{
	struct lb_affinity_value sticky = {.last_used = now_seconds(), .backend_id = id};
	struct lb4_affinity_key client;

	lb4_client(&client, ctx, service);
	bpf_map_update_elem(&cilium_lb4_affinity, &client, &sticky, BPF_ANY);
}

/* Remembers what the application asked for; written before the backend can be seen. */
static __always_inline int lb4_remember(struct bpf_sock_addr *ctx, __be32 address, __be16 port,
					const struct lb_service *service,
					const struct lb4_backend *backend)
{
	struct lb4_reverse_sk_key at = {.cookie = bpf_get_socket_cookie(ctx),
					.address = backend->address,
					.port = backend->port};
	struct lb4_reverse_sk_value asked = {.address = address,
					     .port = port,
					     .rev_nat = service->rev_nat};
	struct lb4_reverse_sk_value *known = bpf_map_lookup_elem(&cilium_lb4_reverse_sk, &at);

	if (known && known->address == asked.address && known->port == asked.port &&
	    known->rev_nat == asked.rev_nat)
		return 0;
	return bpf_map_update_elem(&cilium_lb4_reverse_sk, &at, &asked, BPF_ANY);
}

/* From what the application named to a backend: LB_UNTOUCHED, LB_TRANSLATED or a negative errno. */
static __always_inline int lb4_forward(struct bpf_sock_addr *ctx, __be32 *address, __be16 *port)
{
	struct lb4_key key = {.address = *address, .port = *port, .proto = ctx->protocol};
	struct lb_service *service = lb4_find(ctx, &key);
	struct lb4_backend *backend = NULL;
	__u32 id = 0;
	int affine;

	if (!service)
		return LB_UNTOUCHED;
	if (!service->count)
		return no_backend(DROP_NO_SERVICE);
	affine = service->flags & SERVICE_SESSION_AFFINITY;
	if (affine)
		backend = lb4_sticky(ctx, service, &id);
	if (!backend) {
		id = lb4_pick(ctx, &key, service);
		if (!id)
			return no_backend(LB_NO_SLOT);
		backend = lb4_backend(id);
	}
	if (!backend)
		return no_backend(LB_NO_BACKEND);
	if (left_to_others(backend->cluster_id)) {
		count_lb(FORWARDED, LINE_STALE_LOCAL);
		return LB_UNTOUCHED;
	}
	if (lb4_remember(ctx, *address, *port, service, backend)) {
		count_lb(LB_REVERSE_FULL, LINE_PLAIN);
		return -ENOMEM;
	}
	if (affine)
		lb4_stick(ctx, service, id);
	count_lb(FORWARDED, LINE_PLAIN);
	*address = backend->address;
	*port = backend->port;
	return LB_TRANSLATED;
}

/* From the backend the socket talks to back to what the application named. */
static __always_inline int lb4_reverse(struct bpf_sock_addr *ctx, __be32 *address, __be16 *port)
{
	struct lb4_reverse_sk_key at = {
		.cookie = bpf_get_socket_cookie(ctx), .address = *address, .port = *port};
	struct lb4_reverse_sk_value *asked = bpf_map_lookup_elem(&cilium_lb4_reverse_sk, &at);
	struct lb_service *service;
	struct lb4_key key = {.proto = ctx->protocol};

	if (!asked)
		return LB_UNTOUCHED;
	key.address = asked->address;
	key.port = asked->port;
	service = lb4_find(ctx, &key);
	if (!service || service->rev_nat != asked->rev_nat || !service->count) {
		bpf_map_delete_elem(&cilium_lb4_reverse_sk, &at);
		count_lb(LB_REVERSE_STALE, LINE_PLAIN);
		return LB_UNTOUCHED;
	}
	*address = asked->address;
	*port = asked->port;
	return LB_TRANSLATED;
}
