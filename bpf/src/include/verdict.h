// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What becomes of a packet at a device. */
#pragma once
#include "events.h"
#include "rewrite.h"

enum { TRANSLATED = 1000, NOBODY_SERVES }; /* verdicts of ours */
enum { AGAIN_MARK = 0x2000 }; /* on a packet that enters its bridge again, until it does */

static __always_inline int lose(struct __sk_buff *skb, const struct segment *segment,
				enum reason reason, enum direction direction)
{
	if (listener(MONITOR_DROPS))
		tell_drop(skb, &segment->at, 0, reason, direction);
	count(reason, direction, FILE_BALANCE, LINE_PLAIN, skb->len);
	return TC_SHOT;
}

/* Out of line, one a family: each has a stack of its own. */
#define ABOUT(name, what, family)                                                            \
	static __noinline int name(struct __sk_buff *skb, struct segment *segment)           \
	{                                                                                    \
		return what(skb, family, segment);                                           \
	}
#define ON(family, what, ...)                                                                 \
	((family) == FAMILY_IPV4 ? what##4(__VA_ARGS__) : what##6(__VA_ARGS__))
