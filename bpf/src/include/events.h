// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What happens to packets, told to whoever listens. Contract datapath 1.14 has the layouts.
 * While nobody listens this costs one look-up in an array and one branch. */
#pragma once
#include "mss.h"
#include "packet.h"

enum { EVENT_DROP = 1, EVENT_TRACE = 4, EVENT_VERSION = 1 };
enum point { TO_OVERLAY = 4, FROM_OVERLAY = 9 };
enum { CONNECTION_UNKNOWN = 5, TRACE_IPV6 = 1 };
enum monitor_level { MONITOR_NOTHING = 0, MONITOR_DROPS = 1, MONITOR_ALL = 2 };

enum {
	EVENT_WINDOW_NS = 100 * 1000 * 1000,
	EVENTS_PER_WINDOW = 500,
};
#define FLOW_INTERVAL_NS (5ULL * 1000 * 1000 * 1000)

/* Who listens for this, as long as they keep saying so: a reader that died costs nothing for long. */
static __always_inline struct cm_monitor *listener(enum monitor_level level)
{
	__u32 zero = 0;
	struct cm_monitor *monitor = bpf_map_lookup_elem(&cm_monitor, &zero);

	if (!monitor || monitor->level < level || monitor->until < bpf_ktime_get_ns())
		return NULL;
	return monitor;
}

/* All CPUs share what may be told in a window: a flood of packets is not worth a flood of events. */
static __always_inline int within_budget(struct cm_monitor *monitor)
{
	__u64 now = bpf_ktime_get_ns();

	if (now - monitor->since >= EVENT_WINDOW_NS) {
		monitor->since = now;
		monitor->sent = 0;
	}
	if (__sync_fetch_and_add(&monitor->sent, 1) < EVENTS_PER_WINDOW)
		return 1;
	__sync_fetch_and_add(&monitor->suppressed, 1);
	return 0;
}

/* Room for an event, or NULL and a count of those that found none. */
static __always_inline void *event_room(struct cm_monitor *monitor, __u64 size)
{
	void *room = within_budget(monitor) ? bpf_ringbuf_reserve(&cm_events, size, 0) : NULL;

	if (!room && monitor->sent <= EVENTS_PER_WINDOW)
		__sync_fetch_and_add(&monitor->lost, 1);
	return room;
}

static __always_inline void fill_header(struct __sk_buff *skb, struct event_header *header,
					__u8 type, __u8 subtype, __u8 *packet)
{
	__u32 size = skb->len;

	header->type = type;
	header->subtype = subtype;
	header->source = 0;
	header->hash = skb->hash;
	header->original = skb->len;
	header->version = EVENT_VERSION;
	if (size > EVENT_PACKET)
		size = EVENT_PACKET;
	/* From 1 to EVENT_PACKET, in a form that the verifier follows: before Linux 6.8 it learns nothing
	 * from a comparison with 0. No packet is empty, and what is not there is not read. */
	asm volatile("" : "+r"(size));
	size = ((size - 1) & (EVENT_PACKET - 1)) + 1;
	header->captured = bpf_skb_load_bytes(skb, 0, packet, size) < 0 ? 0 : size;
}

static __always_inline __u32 identity_of(const struct ipcache_key *address)
{
	struct ipcache_value *known =
		address->family ? bpf_map_lookup_elem(&cilium_ipcache, address) : NULL;

	return known ? known->identity : 0;
}

/* Out of line: nobody listens most of the time. */
static __noinline int tell_drop(struct __sk_buff *skb, const struct inner *inner, __u32 sender,
				__u8 reason, __u8 direction)
{
	struct cm_monitor *monitor = listener(MONITOR_DROPS);
	struct drop_event *event;

	if (!monitor)
		return 0;
	event = event_room(monitor, sizeof(*event));
	if (!event)
		return 0;
	fill_header(skb, &event->header, EVENT_DROP, reason, event->packet);
	event->source_identity = sender ? sender : identity_of(&inner->source);
	event->destination_identity = identity_of(&inner->destination);
	event->destination_id = 0;
	event->line = direction; /* lines are ours: of a drop, which way it went */
	event->file = PROGRAM_FILE;
	event->error = 0;
	event->ifindex = skb->ifindex;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Whether the flow has something to tell that was not told yet, or not for a while. */
static __always_inline int worth_telling(struct __sk_buff *skb, const struct inner *inner,
					 enum point point)
{
	struct cm_flow flow = {.protocol = inner->protocol, .point = point};
	struct cm_flow_told *told, now = {.at = bpf_ktime_get_ns()};
	__u8 flags = 0;

	__builtin_memcpy(flow.source, inner->source.address, sizeof(flow.source));
	__builtin_memcpy(flow.destination, inner->destination.address, sizeof(flow.destination));
	if (inner->protocol == IPPROTO_TCP || inner->protocol == IPPROTO_UDP)
		bpf_skb_load_bytes(skb, inner->l4_offset, &flow.ports, sizeof(flow.ports));
	if (inner->protocol == IPPROTO_TCP)
		bpf_skb_load_bytes(skb, inner->l4_offset + TCP_FLAGS, &flags, sizeof(flags));
	now.tcp_flags = flags & TCP_LIFE;
	told = bpf_map_lookup_elem(&cm_flows, &flow);
	if (told && now.at - told->at < FLOW_INTERVAL_NS && !(now.tcp_flags & ~told->tcp_flags))
		return 0;
	if (told && now.at - told->at < FLOW_INTERVAL_NS)
		now.tcp_flags |= told->tcp_flags;
	bpf_map_update_elem(&cm_flows, &flow, &now, BPF_ANY);
	return 1;
}

static __noinline __maybe_unused int tell_trace(struct __sk_buff *skb,
						const struct inner *inner, __u32 sender,
						enum point point)
{
	struct cm_monitor *monitor = listener(MONITOR_ALL);
	struct trace_event *event;

	if (!monitor || !worth_telling(skb, inner, point))
		return 0;
	event = event_room(monitor, sizeof(*event));
	if (!event)
		return 0;
	fill_header(skb, &event->header, EVENT_TRACE, point, event->packet);
	event->source_identity = sender;
	event->destination_identity = identity_of(&inner->destination);
	event->destination_id = 0;
	event->reason = CONNECTION_UNKNOWN;
	event->flags = inner->source.family == FAMILY_IPV6 ? TRACE_IPV6 : 0;
	event->ifindex = skb->ifindex;
	__builtin_memset(event->original_source, 0, sizeof(event->original_source));
	bpf_ringbuf_submit(event, 0);
	return 0;
}
