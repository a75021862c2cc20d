// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* ICMP errors about what was translated. */
#pragma once
#include "connections.h"
#include "verdict.h"

/* A router between us and the client speaks of an answer as it left here: the backend must hear of it. */
static __always_inline int error_from_client(struct __sk_buff *skb, __u8 family,
					     struct segment *segment)
{
	__u32 checksum = segment->at.l4_offset + ICMP_CHECKSUM_AT;
	struct target target = {};
	struct quoted quoted = {};
	union ct_tuple tuple = {};
	struct ct_pair pair = {.daddr = quoted.source, .saddr = quoted.destination};
	struct exchange how = {.old = quoted.source, .new = target.address};
	struct ct_entry *entry;

	if (!read_quoted(skb, family, segment, &quoted))
		return TC_NEXT;
	pair.dport = quoted.destination_port;
	pair.sport = quoted.source_port;
	ct_fill(&tuple, family, pair, quoted.protocol, CT_SERVICE);
	entry = ct_find(family, quoted.protocol, &tuple);
	if (!entry || !backend_of(family, entry->backend_id, &target))
		return TC_NEXT;
	how.old_port = quoted.source_port;
	how.new_port = target.port ? target.port : quoted.source_port;
	if (rewrite_quoted(skb, family, checksum, &quoted, SOURCE, &how) < 0 ||
	    (entry->client_port &&
	     rewrite_quoted_port(skb, checksum, &quoted, DESTINATION, quoted.destination_port,
				 entry->client_port) < 0) ||
	    rewrite_error(skb, family, checksum, DESTINATION, &how) < 0)
		return lose(skb, segment, DROP_NOT_WRITTEN, INGRESS);
	count(FORWARDED, INGRESS, FILE_BALANCE, LINE_RELATED, skb->len);
	return TRANSLATED;
}

/* Somebody behind us, or this node, speaks of a client's packet as it was sent on: the client knows only the
 * service. */
static __always_inline int error_to_client(struct __sk_buff *skb, __u8 family,
					   struct segment *segment)
{
	__u32 checksum = segment->at.l4_offset + ICMP_CHECKSUM_AT;
	struct quoted quoted = {};
	union ct_tuple tuple = {};
	__be32 address[4] = {};
	struct ct_pair pair = {.daddr = quoted.source, .saddr = quoted.destination};
	struct exchange how = {.old = quoted.destination, .new = address};
	struct ct_entry *entry;
	int by_backend;

	if (!read_quoted(skb, family, segment, &quoted))
		return TC_NEXT;
	pair.dport = quoted.destination_port;
	pair.sport = quoted.source_port;
	ct_fill(&tuple, family, pair, quoted.protocol, CT_OUT);
	entry = ct_find(family, quoted.protocol, &tuple);
	if (!entry || !asked_of(family, entry, address, &how.new_port))
		return TC_NEXT;
	how.old_port = quoted.destination_port;
	by_backend = family == FAMILY_IPV4 ?
			     segment->at.source.address[0] == quoted.destination[0] :
			     equal6(segment->at.source.address, quoted.destination);
	if (rewrite_quoted(skb, family, checksum, &quoted, DESTINATION, &how) < 0 ||
	    (entry->client_port &&
	     rewrite_quoted_port(skb, checksum, &quoted, SOURCE, quoted.source_port,
				 entry->client_port) < 0) ||
	    (by_backend && rewrite_error(skb, family, checksum, SOURCE, &how) < 0))
		return lose(skb, segment, DROP_NOT_WRITTEN, EGRESS);
	count(FORWARDED, EGRESS, FILE_BALANCE, LINE_RELATED, skb->len);
	return TC_NEXT;
}

ABOUT(error_from_client4, error_from_client, FAMILY_IPV4)
ABOUT(error_from_client6, error_from_client, FAMILY_IPV6)
ABOUT(error_to_client4, error_to_client, FAMILY_IPV4)
ABOUT(error_to_client6, error_to_client, FAMILY_IPV6)
