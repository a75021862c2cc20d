// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What the maps hold, byte for byte: contract datapath 1.1 to 1.14 (profile 1.17), and our own cm_ maps.
 * bpf/layout*.py holds the Python twins; a test compares both through BTF. */
#pragma once
#include "kernel.h"

enum { FAMILY_IPV4 = 1, FAMILY_IPV6 = 2 };

/* Identities that mean the same everywhere, and how many fit a VNI: contract 1.15. */
enum {
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_WORLD_IPV4 = 9,
	IDENTITY_WORLD_IPV6 = 10,
	IDENTITY_LAST_RESERVED = 10,
	IDENTITY_END = 1 << 24,
};

/* --- overlay: contract 1.1 and 1.2 -------------------------------------------------------------- */
struct tunnel_key {
	__be32 address[4];
	__u8 family;
	__u8 pad;
	__u16 cluster_id;
};

struct tunnel_value {
	__be32 address[4];
	__u8 family;
	__u8 key;
	__u16 pad;
};

enum { IPCACHE_STATIC_BITS = 32 };

struct ipcache_key {
	__u32 prefixlen; /* IPCACHE_STATIC_BITS + the prefix's own bits */
	__u16 cluster_id;
	__u8 pad;
	__u8 family;
	__be32 address[4];
};

enum { IPCACHE_SKIP_TUNNEL = 1 };

struct ipcache_value {
	__u32 identity;
	__be32 tunnel_endpoint;
	__u16 pad;
	__u8 key;
	__u8 flags;
};

/* --- services: contract 1.3 to 1.5 -------------------------------------------------------------- */
enum {
	SERVICE_EXTERNAL_IP = 0x0001,
	SERVICE_NODE_PORT = 0x0002,
	SERVICE_EXTERNAL_LOCAL = 0x0004, /* externalTrafficPolicy Local: clients keep their address */
	SERVICE_SESSION_AFFINITY = 0x0010,
	SERVICE_SOURCE_RANGE = 0x0080, /* only clients in these ranges */
	SERVICE_TWO_SCOPES = 0x2000,
};
enum { SCOPE_EXTERNAL = 0, SCOPE_INTERNAL = 1 };
enum { NODE_PORT_FIRST = 30000, NODE_PORT_LAST = 32767 };
enum { AFFINITY_TIMEOUT_MASK = 0xffffff };

struct lb4_key {
	__be32 address;
	__be16 port;
	__u16 slot; /* 0 is the master */
	__u8 proto; /* the IP protocol number */
	__u8 scope;
	__u8 pad[2];
};

struct lb6_key {
	__be32 address[4];
	__be16 port;
	__u16 slot;
	__u8 proto;
	__u8 scope;
	__u8 pad[2];
};

struct lb_service {
	union {
		__u32 backend_id;	/* slot n */
		__u32 affinity_timeout; /* slot 0, seconds in the low 24 bits */
	};
	__u16 count;
	__be16 rev_nat; /* network order, and never swapped */
	__u16 flags;
	__u16 qcount;
};

struct lb4_backend {
	__be32 address;
	__be16 port;
	__u8 proto;
	__u8 state;
	__u16 cluster_id;
	__u8 zone;
	__u8 pad;
};

struct lb6_backend {
	__be32 address[4];
	__be16 port;
	__u8 proto;
	__u8 state;
	__u16 cluster_id;
	__u8 zone;
	__u8 pad;
};

struct lb4_reverse_nat {
	__be32 address;
	__be16 port;
} __packed;

struct lb6_reverse_nat {
	__be32 address[4];
	__be16 port;
} __packed;

/* --- source ranges: contract 1.7 ------------------------------------------------------------------ */
enum { SOURCE_RANGE_STATIC_BITS = 32 };

struct lb4_source_range {
	__u32 prefixlen; /* SOURCE_RANGE_STATIC_BITS + the prefix's own bits */
	__be16 rev_nat;
	__u16 pad;
	__be32 address;
};

struct lb6_source_range {
	__u32 prefixlen;
	__be16 rev_nat;
	__u16 pad;
	__be32 address[4];
};

/* --- session affinity: contract 1.6 -------------------------------------------------------------- */
struct lb4_affinity_key {
	__u64 client;
	__be16 rev_nat;
	__u8 by_cookie;
	__u8 pad1;
	__u32 pad2;
};

struct lb6_affinity_key {
	__u64 client[2];
	__be16 rev_nat;
	__u8 by_cookie;
	__u8 pad1;
	__u32 pad2;
};

struct lb_affinity_value {
	__u64 last_used; /* seconds of the monotonic clock */
	__u32 backend_id;
	__u32 pad;
};

struct lb_affinity_match {
	__u32 backend_id;
	__be16 rev_nat;
	__u16 pad;
};

/* --- socket reverse translation: contract 1.9 ------------------------------------------------------ */
struct lb4_reverse_sk_key {
	__u64 cookie;
	__be32 address;
	__be16 port;
	__u16 pad;
};

struct lb4_reverse_sk_value {
	__be32 address;
	__be16 port;
	__be16 rev_nat;
};

struct lb6_reverse_sk_key {
	__u64 cookie;
	__be32 address[4];
	__be16 port;
	__u16 pad[3];
};

struct lb6_reverse_sk_value {
	__be32 address[4];
	__be16 port;
	__be16 rev_nat;
};

/* --- metrics: contract 1.14 ------------------------------------------------------------------------- */
struct metrics_key {
	__u8 reason;
	__u8 direction; /* bits 0-1 */
	__u16 line;
	__u8 file;
	__u8 pad[3];
};

struct metrics_value {
	__u64 count;
	__u64 bytes;
};

/* --- our own ----------------------------------------------------------------------------------------- */
/* Who may send to the overlay: the key is the node's underlay IPv4 address, network bytes. */
struct cm_node {
	__u32 cluster_id;
	__u32 identity_low; /* the first and the last VNI that this node may use besides 2..10 */
	__u32 identity_high;
	__u32 flags;
};

/* What the agent says about itself, written through mmap: no bpf(2) call, no lock. */
struct cm_state {
	__u64 stamp;	   /* ns of CLOCK_MONOTONIC when the agent's facts were last known fresh, 0 never */
	__u64 stale_after; /* ns */
	__u32 cluster_id;
	__u32 table_size; /* entries of a selection table, fixed when the maps are made */
	__u32 mss;	  /* largest TCP segment of IPv4 through the overlay, 0 leaves them alone */
	__u32 flags;
};

/* How many ICMP errors this CPU has sent since a moment. */
struct cm_limit {
	__u64 since; /* ns of CLOCK_MONOTONIC */
	__u64 sent;
};

/* --- events: contract 1.14 ------------------------------------------------------------------------------ */
enum { EVENT_PACKET = 128 };

struct event_header {
	__u8 type;
	__u8 subtype;
	__u16 source;
	__u32 hash;
	__u32 original; /* bytes of the packet, and how many of them follow the event */
	__u16 captured;
	__u16 version;
};

struct drop_event {
	struct event_header header;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 destination_id;
	__u16 line;
	__u8 file;
	__s8 error;
	__u32 ifindex;
	__u8 packet[EVENT_PACKET];
};

struct trace_event {
	struct event_header header;
	__u32 source_identity;
	__u32 destination_identity;
	__u16 destination_id;
	__u8 reason;
	__u8 flags;
	__u32 ifindex;
	__be32 original_source[4];
	__u8 packet[EVENT_PACKET];
};

#define AT(type, member, offset)                                                             \
	_Static_assert(offsetof(struct type, member) == (offset), #type "." #member)
AT(event_header, hash, 4);
AT(event_header, original, 8);
AT(event_header, captured, 12);
AT(event_header, version, 14);
AT(drop_event, source_identity, 16);
AT(drop_event, destination_identity, 20);
AT(drop_event, destination_id, 24);
AT(drop_event, line, 28);
AT(drop_event, file, 30);
AT(drop_event, error, 31);
AT(drop_event, ifindex, 32);
AT(drop_event, packet, 36);
AT(trace_event, source_identity, 16);
AT(trace_event, destination_identity, 20);
AT(trace_event, destination_id, 24);
AT(trace_event, reason, 26);
AT(trace_event, flags, 27);
AT(trace_event, ifindex, 28);
AT(trace_event, original_source, 32);
AT(trace_event, packet, 48);

/* What somebody listens for, written through mmap, and what they missed. */
struct cm_monitor {
	__u64 until; /* ns of CLOCK_MONOTONIC: nobody listens any more then */
	__u64 lost;  /* no room in the ring */
	__u64 suppressed; /* more than a window may have */
	__u64 since; /* ns of CLOCK_MONOTONIC when the present window began */
	__u64 sent;
	__u32 level;
	__u32 pad;
};

/* One direction of a conversation, and what was told of it: traces are one per flow and while. */
struct cm_flow {
	__be32 source[4];
	__be32 destination[4];
	__be32 ports;
	__u8 protocol;
	__u8 point;
	__u16 pad;
};

struct cm_flow_told {
	__u64 at; /* ns of CLOCK_MONOTONIC */
	__u32 tcp_flags;
	__u32 pad;
};
