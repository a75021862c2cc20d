// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What choosing a backend means, for both address families. Contract 3.6, 3.7; design 4 "Selection", "Stale". */
#pragma once
#include "metrics.h"

/* Set before loading: entries of a selection table; the cookie of the host's network namespace, 0 for none
 * known. */
const volatile struct {
	__u32 table_size;
	__u32 pad;
	__u64 host_netns;
} settings SEC(".rodata") = {.table_size = DEFAULT_TABLE_SIZE};

enum { LB_UNTOUCHED = 0, LB_TRANSLATED = 1 };
#define NS_PER_SECOND 1000000000ULL

static __always_inline void count_lb(enum reason reason, enum line line)
{
	count(reason, SERVICE, PROGRAM_FILE, line, 0);
}

static __always_inline __u64 now_seconds(void)
{
	return bpf_ktime_get_ns() / NS_PER_SECOND;
}

static __always_inline int may_be_node_port(__be16 port)
{
	__u16 number = bswap16(port);

	return number >= NODE_PORT_FIRST && number <= NODE_PORT_LAST;
}

static __always_inline int is_on_host(void *ctx)
{
	return settings.host_netns && bpf_get_netns_cookie(ctx) == settings.host_netns;
}

/* One look-up decides: whatever the policy, the agent has expressed it as the shares of this table. */
static __always_inline __u32 pick_from_table(void *tables, __be16 rev_nat, __u32 number)
{
	void *table = bpf_map_lookup_elem(tables, &rev_nat);
	__u32 zero = 0, place = number % settings.table_size;
	__u32 *backends;

	if (!table)
		return 0;
	backends = bpf_map_lookup_elem(table, &zero);
	if (!backends)
		return 0;
	/* The verifier does not know what a modulo bounds, and the compiler would drop the check. */
	asm volatile("" : "+r"(place));
	if (place >= settings.table_size)
		return 0;
	return backends[place];
}

/* TCP draws anew for each connection; a UDP socket stays with what its cookie picks. */
static __always_inline __u32 draw(void *ctx, __u8 proto)
{
	return proto == IPPROTO_TCP ? bpf_get_prandom_u32() : (__u32)bpf_get_socket_cookie(ctx);
}

/* The agent has not been able to vouch for its facts for too long. */
static __always_inline int facts_are_stale(const struct cm_state *state)
{
	__u64 stamp = state ? state->stamp : 0;

	return stamp && stamp + state->stale_after < bpf_ktime_get_ns();
}

/* With stale facts, local pods are better served by what serves them anyway. */
static __always_inline int left_to_others(__u16 backend_cluster)
{
	struct cm_state *state = agent_state();

	return facts_are_stale(state) &&
	       (!backend_cluster || backend_cluster == state->cluster_id);
}

/* Refuses at once, unless somebody else may know better by now. */
static __always_inline int no_backend(enum reason reason)
{
	if (facts_are_stale(agent_state())) {
		count_lb(FORWARDED, LINE_STALE_LOCAL);
		return LB_UNTOUCHED;
	}
	count_lb(reason, LINE_PLAIN);
	return -EHOSTUNREACH;
}

static __always_inline int affinity_holds(const struct lb_affinity_value *sticky,
					  const struct lb_service *service)
{
	struct lb_affinity_match match = {.backend_id = sticky->backend_id,
					  .rev_nat = service->rev_nat};
	__u32 timeout = service->affinity_timeout & AFFINITY_TIMEOUT_MASK;

	return sticky->last_used + timeout > now_seconds() &&
	       bpf_map_lookup_elem(&cilium_lb_affinity_match, &match);
}
