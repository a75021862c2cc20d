// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Every map, once. The loader makes them from maps.bpf.o with the configured sizes and pins them;
 * the other objects get the pinned ones. Names and flags: contract datapath 1. */
#pragma once
#include "layout.h"

#define MAP(map_type, entries, flags, key_type, value_type)                                  \
	struct {                                                                             \
		__uint(type, map_type);                                                      \
		__uint(max_entries, entries);                                                \
		__uint(map_flags, flags);                                                    \
		__type(key, key_type);                                                       \
		__type(value, value_type);                                                   \
	}

#define HASH(entries, key, value) MAP(BPF_MAP_TYPE_HASH, entries, BPF_F_NO_PREALLOC, key, value)
#define LRU(entries, key, value) MAP(BPF_MAP_TYPE_LRU_HASH, entries, 0, key, value)

HASH(65536, struct tunnel_key, struct tunnel_value) cilium_tunnel_map SEC(".maps");
MAP(BPF_MAP_TYPE_LPM_TRIE, 512000, BPF_F_NO_PREALLOC, struct ipcache_key, struct ipcache_value)
cilium_ipcache SEC(".maps");
HASH(16384, __be32, struct cm_node) cm_nodes SEC(".maps");

HASH(65536, struct lb4_key, struct lb_service) cilium_lb4_services_v2 SEC(".maps");
HASH(65536, struct lb6_key, struct lb_service) cilium_lb6_services_v2 SEC(".maps");
HASH(65536, __u32, struct lb4_backend) cilium_lb4_backends_v3 SEC(".maps");
HASH(65536, __u32, struct lb6_backend) cilium_lb6_backends_v3 SEC(".maps");
HASH(65536, __be16, struct lb4_reverse_nat) cilium_lb4_reverse_nat SEC(".maps");
HASH(65536, __be16, struct lb6_reverse_nat) cilium_lb6_reverse_nat SEC(".maps");
MAP(BPF_MAP_TYPE_LPM_TRIE, 65536, BPF_F_NO_PREALLOC, struct lb4_source_range, __u8)
cilium_lb4_source_range SEC(".maps");
MAP(BPF_MAP_TYPE_LPM_TRIE, 65536, BPF_F_NO_PREALLOC, struct lb6_source_range, __u8)
cilium_lb6_source_range SEC(".maps");
LRU(65536, struct lb4_affinity_key, struct lb_affinity_value) cilium_lb4_affinity SEC(".maps");
LRU(65536, struct lb6_affinity_key, struct lb_affinity_value) cilium_lb6_affinity SEC(".maps");
HASH(65536, struct lb_affinity_match, __u8) cilium_lb_affinity_match SEC(".maps");
LRU(262144, struct lb4_reverse_sk_key, struct lb4_reverse_sk_value)
cilium_lb4_reverse_sk SEC(".maps");
LRU(262144, struct lb6_reverse_sk_key, struct lb6_reverse_sk_value)
cilium_lb6_reverse_sk SEC(".maps");

/* A selection table is one array value of backend ids; the loader sets its size. Contract 1.8. */
#define DEFAULT_TABLE_SIZE 1021
struct selection_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, DEFAULT_TABLE_SIZE * sizeof(__u32));
};
#define TABLES                                                                               \
	struct {                                                                             \
		__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);                                     \
		__uint(max_entries, 65536);                                                  \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                        \
		__uint(key_size, sizeof(__be16));                                            \
		__uint(value_size, sizeof(__u32));                                           \
		__array(values, struct selection_table);                                     \
	}
TABLES cilium_lb4_maglev SEC(".maps");
TABLES cilium_lb6_maglev SEC(".maps");

MAP(BPF_MAP_TYPE_PERCPU_HASH, 1024, BPF_F_NO_PREALLOC, struct metrics_key, struct metrics_value)
cilium_metrics SEC(".maps");
MAP(BPF_MAP_TYPE_ARRAY, 1, BPF_F_MMAPABLE, __u32, struct cm_state) cm_state SEC(".maps");
MAP(BPF_MAP_TYPE_PERCPU_ARRAY, 1, 0, __u32, struct cm_limit) cm_limits SEC(".maps");

/* A ring of events, in bytes; who listens to it; what was told of each flow. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144);
	__uint(map_flags, 0);
	__uint(key_size, 0);
	__uint(value_size, 0);
} cm_events SEC(".maps");
MAP(BPF_MAP_TYPE_ARRAY, 1, BPF_F_MMAPABLE, __u32, struct cm_monitor) cm_monitor SEC(".maps");
LRU(8192, struct cm_flow, struct cm_flow_told) cm_flows SEC(".maps");
