// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Services at the socket: the address is exchanged when a program connects or sends, so packets need no
 * translation at all. Contract 3.7. Return 1 lets the call proceed, 0 refuses it. */
#define PROGRAM_FILE FILE_SOCK
#include "lb4.h"
#include "lb6.h"

enum { REFUSE = 0, PROCEED = 1 };

static __always_inline int handled(const struct bpf_sock_addr *ctx)
{
	return ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_UDP;
}

static __always_inline int mapped(const struct bpf_sock_addr *ctx)
{
	return !ctx->user_ip6[0] && !ctx->user_ip6[1] &&
	       ctx->user_ip6[2] == const_bswap32(0xffff);
}

static __always_inline int verdict(int outcome)
{
	if (outcome >= 0)
		return PROCEED;
	bpf_set_retval(outcome);
	return REFUSE;
}

static __always_inline int forward4(struct bpf_sock_addr *ctx)
{
	__be32 address = ctx->user_ip4;
	__be16 port = ctx->user_port;
	int outcome;

	if (!handled(ctx))
		return PROCEED;
	outcome = lb4_forward(ctx, &address, &port);
	if (outcome == LB_TRANSLATED) {
		ctx->user_ip4 = address;
		ctx->user_port = port;
	}
	return verdict(outcome);
}

static __always_inline int reverse4(struct bpf_sock_addr *ctx)
{
	__be32 address = ctx->user_ip4;
	__be16 port = ctx->user_port;

	if (handled(ctx) && lb4_reverse(ctx, &address, &port) == LB_TRANSLATED) {
		ctx->user_ip4 = address;
		ctx->user_port = port;
	}
	return PROCEED;
}

static __always_inline void read6(const struct bpf_sock_addr *ctx, __be32 address[4])
{
	address[0] = ctx->user_ip6[0];
	address[1] = ctx->user_ip6[1];
	address[2] = ctx->user_ip6[2];
	address[3] = ctx->user_ip6[3];
}

static __always_inline void write6(struct bpf_sock_addr *ctx, const __be32 address[4], __be16 port)
{
	ctx->user_ip6[0] = address[0];
	ctx->user_ip6[1] = address[1];
	ctx->user_ip6[2] = address[2];
	ctx->user_ip6[3] = address[3];
	ctx->user_port = port;
}

static __always_inline int forward6(struct bpf_sock_addr *ctx)
{
	__be16 port = ctx->user_port;
	__be32 address[4];
	int outcome;

	if (!handled(ctx))
		return PROCEED;
	read6(ctx, address);
	if (mapped(ctx))
		outcome = lb4_forward(ctx, &address[3], &port);
	else
		outcome = lb6_forward(ctx, address, &port);
	if (outcome == LB_TRANSLATED)
		write6(ctx, address, port);
	return verdict(outcome);
}

static __always_inline int reverse6(struct bpf_sock_addr *ctx)
{
	__be16 port = ctx->user_port;
	__be32 address[4];
	int outcome;

	if (!handled(ctx))
		return PROCEED;
	read6(ctx, address);
	if (mapped(ctx))
		outcome = lb4_reverse(ctx, &address[3], &port);
	else
		outcome = lb6_reverse(ctx, address, &port);
	if (outcome == LB_TRANSLATED)
		write6(ctx, address, port);
	return PROCEED;
}

#define HOOK(hook, body)                                                                     \
	SEC("cgroup/" #hook) int cm_##hook(struct bpf_sock_addr *ctx)                        \
	{                                                                                    \
		return body(ctx);                                                            \
	}

HOOK(connect4, forward4)
HOOK(sendmsg4, forward4)
HOOK(recvmsg4, reverse4)
HOOK(getpeername4, reverse4)
HOOK(connect6, forward6)
HOOK(sendmsg6, forward6)
HOOK(recvmsg6, reverse6)
HOOK(getpeername6, reverse6)

const char _license[] SEC("license") = "Dual BSD/GPL";
