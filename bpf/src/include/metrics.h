// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Counting: one entry of cilium_metrics per reason, direction and place. Contract datapath 1.14 and 2. */
#pragma once
#include "maps.h"

enum reason {
	FORWARDED = 0,
	LB_NO_SLOT = 5,
	LB_NO_BACKEND = 6,
	LB_REVERSE_FULL = 7,
	LB_REVERSE_STALE = 8,
	DROP_INVALID_SOURCE = 132,
	DROP_INVALID_PACKET = 134,
	DROP_UNKNOWN_L3 = 139,
	DROP_NOT_WRITTEN = 141,
	DROP_NO_TUNNEL_KEY = 147,
	DROP_UNROUTABLE = 151,
	DROP_NO_ROOM = 155,
	DROP_NO_SERVICE = 158,
	DROP_NO_ENDPOINT = 160,
	DROP_INVALID_IDENTITY = 171,
	DROP_SOURCE_RANGE = 177,
	DROP_INVALID_CLUSTER = 192,
};
enum direction { INGRESS = 1, EGRESS = 2, SERVICE = 3 };
enum file { FILE_BALANCE = 1, FILE_OVERLAY = 3, FILE_SOCK = 5 };

/* Lines are ours: they stay the same when the source moves. bpf/counters.py names them. */
enum line {
	LINE_PLAIN = 1,
	LINE_UNKNOWN_SOURCE = 2,  /* sent as world, because the source is not in the ipcache yet */
	LINE_UNSENDABLE = 3,	  /* sent as world, because the identity does not fit a VNI */
	LINE_UNREACHABLE_SENT = 4, /* dropped, and the sender was told by ICMP */
	LINE_STALE_LOCAL = 5,	  /* left untranslated: stale facts, local backend */
	LINE_SELECTED_BY_SLOT = 6, /* no selection table yet: a random slot */
	LINE_FROM_NODE = 7,	   /* sent on with this node as its source */
	LINE_RELATED = 8,	   /* an ICMP error about a translated connection */
	LINE_UNKNOWN_CONNECTION = 9, /* left untranslated: no handshake was seen, others may know it */
};

static __always_inline void count(enum reason reason, enum direction direction, enum file file,
				  enum line line, __u64 bytes)
{
	struct metrics_key key = {
		.reason = reason, .direction = direction, .file = file, .line = line};
	struct metrics_value *value = bpf_map_lookup_elem(&cilium_metrics, &key);

	if (value) {
		value->count += 1;
		value->bytes += bytes;
	} else {
		struct metrics_value first = {.count = 1, .bytes = bytes};

		bpf_map_update_elem(&cilium_metrics, &key, &first, BPF_ANY);
	}
}

static __always_inline struct cm_state *agent_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cm_state, &zero);
}
