// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Maps of load balancing per packet: made only on nodes that do it, since they take their room at once.
 * Contract datapath 1.13; cm_ is ours. */
#pragma once
#include "maps.h"

struct ct4_tuple {
	__be32 daddr;
	__be32 saddr;
	__be16 dport;
	__be16 sport;
	__u8 nexthdr;
	__u8 flags;
} __packed;

struct ct6_tuple {
	__be32 daddr[4];
	__be32 saddr[4];
	__be16 dport;
	__be16 sport;
	__u8 nexthdr;
	__u8 flags;
} __packed;

struct ct_entry {
	union {
		struct {
			__u64 reserved;
			__u64 backend_id; /* service entries */
		};
		__be32 frontend[4]; /* egress entries of node ports: the address that was named */
	};
	__u64 packets;
	__u64 bytes;
	__u32 lifetime; /* seconds of CLOCK_MONOTONIC at which it may go */
	__u16 bits;
	__be16 rev_nat;
	__u16 ifindex;
	__u8 tx_flags;
	__u8 rx_flags;
	union {
		__u32 source_identity; /* of the contract's programs; ours do not know it */
		__be16 client_port; /* the client's port on the entry's other side, 0: the same */
	};
	__u32 last_tx_report;
	__u32 last_rx_report;
};

/* A datagram in parts, and the ports that only its first part has. */
struct cm_fragment {
	__be32 source;
	__be32 destination;
	__be16 id;
	__u8 protocol;
	__u8 pad;
};

struct cm_fragment6 {
	__be32 source[4];
	__be32 destination[4];
	__be32 id;
	__u8 protocol;
	__u8 pad[3];
};

struct cm_fragment_ports {
	__be16 source;
	__be16 destination;
};

LRU(524288, struct ct4_tuple, struct ct_entry) cilium_ct4_global SEC(".maps");
LRU(262144, struct ct4_tuple, struct ct_entry) cilium_ct_any4_global SEC(".maps");
LRU(524288, struct ct6_tuple, struct ct_entry) cilium_ct6_global SEC(".maps");
LRU(262144, struct ct6_tuple, struct ct_entry) cilium_ct_any6_global SEC(".maps");
LRU(8192, struct cm_fragment, struct cm_fragment_ports) cm_fragments SEC(".maps");
LRU(8192, struct cm_fragment6, struct cm_fragment_ports) cm_fragments6 SEC(".maps");
