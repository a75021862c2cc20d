// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Services of IPv6: from service address to backend, and back. lb4.h is its twin. */
#pragma once
#include "lb.h"

static __always_inline void copy6(__be32 to[4], const __be32 from[4])
{
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	to[3] = from[3];
}

static __always_inline int equal6(const __be32 a[4], const __be32 b[4])
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline struct lb_service *lb6_service(struct lb6_key *key)
{
	struct lb_service *service = bpf_map_lookup_elem(&cilium_lb6_services_v2, key);

	if (service && service->flags & SERVICE_TWO_SCOPES) {
		key->scope = SCOPE_INTERNAL;
		service = bpf_map_lookup_elem(&cilium_lb6_services_v2, key);
	}
	return service;
}

/* Whether it is an address of this node; the overlay knows other nodes by their IPv4 addresses only. */
static __always_inline int lb6_own_node(const __be32 address[4])
{
	struct ipcache_key key = {.prefixlen = IPCACHE_STATIC_BITS + 128, .family = FAMILY_IPV6};
	struct ipcache_value *known;

	copy6(key.address, address);
	known = bpf_map_lookup_elem(&cilium_ipcache, &key);
	return known && known->identity == IDENTITY_HOST;
}

static __always_inline int lb6_unspecified(const __be32 address[4])
{
	return !address[0] && !address[1] && !address[2] && !address[3];
}

static __always_inline int lb6_loopback(void *ctx, const __be32 address[4])
{
	return !address[0] && !address[1] && !address[2] && address[3] == const_bswap32(1) &&
	       is_on_host(ctx);
}

/* See lb4_find. */
static __always_inline struct lb_service *lb6_find(void *ctx, struct lb6_key *key)
{
	struct lb_service *service;

	if (lb6_unspecified(key->address) && !is_on_host(ctx))
		return NULL; /* it means the pod itself, not every node */
	service = lb6_service(key);
	if (service && service->flags & SERVICE_SOURCE_RANGE)
		return NULL; /* a socket does not say where it will be seen to come from */
	if (service)
		return service->flags & SERVICE_EXTERNAL_IP && !lb6_own_node(key->address) ?
			       NULL :
			       service;
	if (!may_be_node_port(key->port) ||
	    !(lb6_loopback(ctx, key->address) || lb6_own_node(key->address)))
		return NULL;
	__builtin_memset(key->address, 0, sizeof(key->address));
	return lb6_service(key);
}

static __always_inline __u32 lb6_pick_slot(struct lb6_key *key, const struct lb_service *service,
					   __u32 number)
{
	struct lb_service *slot;

	key->slot = number % service->count + 1;
	slot = bpf_map_lookup_elem(&cilium_lb6_services_v2, key);
	key->slot = 0;
	if (!slot || !slot->backend_id)
		return 0;
	count_lb(FORWARDED, LINE_SELECTED_BY_SLOT);
	return slot->backend_id;
}

static __always_inline __u32 lb6_pick(void *ctx, struct lb6_key *key, const struct lb_service *service)
{
	__u32 number = draw(ctx, key->proto);
	__u32 id = pick_from_table(&cilium_lb6_maglev, service->rev_nat, number);

	return id ? id : lb6_pick_slot(key, service, number);
}

static __always_inline struct lb6_backend *lb6_backend(__u32 id)
{
	return bpf_map_lookup_elem(&cilium_lb6_backends_v3, &id);
}

/* A network namespace is a client; sockets of one pod share it. */
static __always_inline void lb6_client(struct lb6_affinity_key *client, void *ctx,
				       const struct lb_service *service)
{
	__builtin_memset(client, 0, sizeof(*client));
	client->client[0] = bpf_get_netns_cookie(ctx);
	client->rev_nat = service->rev_nat;
	client->by_cookie = 1;
}

/* The backend this client was sent to before, if it may still be used. */
static __always_inline struct lb6_backend *lb6_sticky(void *ctx, const struct lb_service *service,
						      __u32 *id)
{
	struct lb6_affinity_key client;
	struct lb_affinity_value *sticky;

	lb6_client(&client, ctx, service);
	sticky = bpf_map_lookup_elem(&cilium_lb6_affinity, &client);
	if (!sticky || !affinity_holds(sticky, service))
		return NULL;
	*id = sticky->backend_id;
	return lb6_backend(*id);
}

static __always_inline void lb6_stick(void *ctx, const struct lb_service *service, __u32 id)
{
	struct lb_affinity_value sticky = {.last_used = now_seconds(), .backend_id = id};
	struct lb6_affinity_key client;

	lb6_client(&client, ctx, service);
	bpf_map_update_elem(&cilium_lb6_affinity, &client, &sticky, BPF_ANY);
}

/* Remembers what the application asked for; written before the backend can be seen. */
static __always_inline int lb6_remember(struct bpf_sock_addr *ctx, const __be32 address[4],
					__be16 port,
					const struct lb_service *service,
					const struct lb6_backend *backend)
{
	struct lb6_reverse_sk_key at = {.cookie = bpf_get_socket_cookie(ctx),
					.port = backend->port};
	struct lb6_reverse_sk_value asked = {.port = port,
					     .rev_nat = service->rev_nat};
	struct lb6_reverse_sk_value *known;

	copy6(at.address, backend->address);
	copy6(asked.address, address);
	known = bpf_map_lookup_elem(&cilium_lb6_reverse_sk, &at);
	if (known && equal6(known->address, asked.address) && known->port == asked.port &&
	    known->rev_nat == asked.rev_nat)
		return 0;
	return bpf_map_update_elem(&cilium_lb6_reverse_sk, &at, &asked, BPF_ANY);
}

/* From what the application named to a backend: LB_UNTOUCHED, LB_TRANSLATED or a negative errno. */
static __always_inline int lb6_forward(struct bpf_sock_addr *ctx, __be32 address[4], __be16 *port)
{
	struct lb6_key key = {.port = *port, .proto = ctx->protocol};
	struct lb6_backend *backend = NULL;
	struct lb_service *service;
	__u32 id = 0;
	int affine;

	copy6(key.address, address);
	service = lb6_find(ctx, &key);
	if (!service)
		return LB_UNTOUCHED;
	if (!service->count)
		return no_backend(DROP_NO_SERVICE);
	affine = service->flags & SERVICE_SESSION_AFFINITY;
	if (affine)
		backend = lb6_sticky(ctx, service, &id);
	if (!backend) {
		id = lb6_pick(ctx, &key, service);
		if (!id)
			return no_backend(LB_NO_SLOT);
		backend = lb6_backend(id);
	}
	if (!backend)
		return no_backend(LB_NO_BACKEND);
	if (left_to_others(backend->cluster_id)) {
		count_lb(FORWARDED, LINE_STALE_LOCAL);
		return LB_UNTOUCHED;
	}
	if (lb6_remember(ctx, address, *port, service, backend)) {
		count_lb(LB_REVERSE_FULL, LINE_PLAIN);
		return -ENOMEM;
	}
	if (affine)
		lb6_stick(ctx, service, id);
	count_lb(FORWARDED, LINE_PLAIN);
	copy6(address, backend->address);
	*port = backend->port;
	return LB_TRANSLATED;
}

/* From the backend the socket talks to back to what the application named. */
static __always_inline int lb6_reverse(struct bpf_sock_addr *ctx, __be32 address[4], __be16 *port)
{
	struct lb6_reverse_sk_key at = {.cookie = bpf_get_socket_cookie(ctx), .port = *port};
	struct lb6_reverse_sk_value *asked;
	struct lb_service *service;
	struct lb6_key key = {.proto = ctx->protocol};

	copy6(at.address, address);
	asked = bpf_map_lookup_elem(&cilium_lb6_reverse_sk, &at);
	if (!asked)
		return LB_UNTOUCHED;
	copy6(key.address, asked->address);
	key.port = asked->port;
	service = lb6_find(ctx, &key);
	if (!service || service->rev_nat != asked->rev_nat || !service->count) {
		bpf_map_delete_elem(&cilium_lb6_reverse_sk, &at);
		count_lb(LB_REVERSE_STALE, LINE_PLAIN);
		return LB_UNTOUCHED;
	}
	copy6(address, asked->address);
	*port = asked->port;
	return LB_TRANSLATED;
}
