//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// What stands behind the destination of a packet: sockets first, then connection
// tracking, as host.Lookup asks them.
#pragma once
#include "xdp_sent.h"

enum use {
	FREE,       // nobody: or a trap socket of ours
	SERVED,     // a socket takes it
	ANSWER,     // it answers something sent from here, or from behind us
	TRANSLATED, // destination NAT hands it to somebody else
	UNKNOWN,    // that could not be asked
};

// ephemeral: in ip_local_port_range, where answers to our own packets arrive.
inline_ int ephemeral(__u16 port) { return port >= config.ephemeral_first && port <= config.ephemeral_last; }

inline_ __u32 tuple_of(const struct packet *p, struct bpf_sock_tuple *t)
{
	if (p->ip & IS_V6) {
		__builtin_memcpy(t->ipv6.saddr, &p->src, 16);
		__builtin_memcpy(t->ipv6.daddr, &p->dst, 16);
		t->ipv6.sport = htons(p->sport);
		t->ipv6.dport = htons(p->dport);
		return sizeof(t->ipv6);
	}
	t->ipv4.saddr = p->src.w[3];
	t->ipv4.daddr = p->dst.w[3];
	t->ipv4.sport = htons(p->sport);
	t->ipv4.dport = htons(p->dport);
	return sizeof(t->ipv4);
}

// trap_listener reports whether the listener that t finds is one of our traps.
inline_ int trap_listener(struct xdp_md *ctx, struct bpf_sock_tuple *t, int v6)
{
	struct found_sock *sk;
	int trap;

	if (!(config.flags & OWN_TRAPS))
		return 0;
	if (v6)
		sk = bpf_sk_lookup_tcp(ctx, t, sizeof(t->ipv6), CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_tcp(ctx, t, sizeof(t->ipv4), CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	trap = sk->mark == TRAP_MARK;
	bpf_sk_release(sk);
	return trap;
}

// tcp_socket gives the state of the socket that takes p, 0 for none, or for a trap
// of ours.
inline_ __u32 tcp_socket(struct xdp_md *ctx, const struct packet *p, struct bpf_sock_tuple *t)
{
	struct found_sock *sk;
	__u32 state;

	if (p->ip & IS_V6)
		sk = bpf_skc_lookup_tcp(ctx, t, sizeof(t->ipv6), CURRENT_NETNS, 0);
	else
		sk = bpf_skc_lookup_tcp(ctx, t, sizeof(t->ipv4), CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	state = sk->state;
	bpf_sk_release(sk);
	return state == TCP_LISTEN && trap_listener(ctx, t, p->ip & IS_V6) ? 0 : state;
}

// udp_socket is tcp_socket for UDP: a wildcard one is one, too.
inline_ __u32 udp_socket(struct xdp_md *ctx, const struct packet *p, struct bpf_sock_tuple *t)
{
	struct found_sock *sk;
	__u32 state;

	if (p->ip & IS_V6)
		sk = bpf_sk_lookup_udp(ctx, t, sizeof(t->ipv6), CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_udp(ctx, t, sizeof(t->ipv4), CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	state = config.flags & OWN_TRAPS && sk->mark == TRAP_MARK ? 0 : sk->state;
	bpf_sk_release(sk);
	return state;
}

enum flow { NO_FLOW, NEW_FLOW, LIVE_FLOW, NATED_FLOW, REPLY_FLOW, FLOW_UNKNOWN };

// flow_of asks connection tracking. An entry that begins at the packet's source
// and has seen no answer says nothing: the packet before has made it.
inline_ enum flow flow_of(struct xdp_md *ctx, const struct packet *p, struct bpf_sock_tuple *t)
{
	struct bpf_ct_opts opts = {.netns_id = -1, .l4proto = p->proto};
	enum flow f = NEW_FLOW;
	struct nf_conn *ct;
	__u64 status;

	if (!bpf_xdp_ct_lookup)
		return FLOW_UNKNOWN;
	if (p->ip & IS_V6)
		ct = bpf_xdp_ct_lookup(ctx, t, sizeof(t->ipv6), &opts, sizeof(opts));
	else
		ct = bpf_xdp_ct_lookup(ctx, t, sizeof(t->ipv4), &opts, sizeof(opts));
	if (!ct)
		return NO_FLOW;
	status = ct->status;
	if (opts.dir == CT_DIR_REPLY)
		f = REPLY_FLOW;
	else if (status & CT_DST_NAT)
		f = NATED_FLOW;
	else if (status & CT_SEEN_REPLY)
		f = LIVE_FLOW;
	bpf_ct_release(ct);
	return f;
}

// elsewhere: sockets and connections of the packet cannot be found from here.
inline_ int elsewhere(const struct packet *p)
{
	return config.flags & ELSEWHERE || (config.flags & VLANS && p->vlan[0] | p->vlan[1]);
}

// look_up answers for TCP and UDP. Without connection tracking, no answer is
// only good enough for a SYN that no port is translated for.
inline_ enum use look_up(struct xdp_md *ctx, const struct packet *p, int bare_syn)
{
	struct bpf_sock_tuple t = {};

	tuple_of(p, &t);
	if (p->proto == IPPROTO_TCP ? tcp_socket(ctx, p, &t) : udp_socket(ctx, p, &t))
		return SERVED;
	if (elsewhere(p))
		return UNKNOWN;
	if (was_sent(p))
		return ANSWER;
	switch (flow_of(ctx, p, &t)) {
	case REPLY_FLOW:
		return ANSWER;
	case NATED_FLOW:
		return TRANSLATED;
	case FLOW_UNKNOWN:
		return bare_syn ? FREE : UNKNOWN;
	default:
		return FREE;
	}
}

// use_of is look_up, which it asks once a packet.
once_ int use_of(struct xdp_md *ctx, struct packet *p, int bare_syn)
{
	if (!p)
		return UNKNOWN;
	if (!p->asked)
		p->asked = 1 + look_up(ctx, p, bare_syn);
	return p->asked - 1;
}

// belongs reports whether p is part of a connection that exists, or answers
// something of ours: a soft ban leaves that alone. What cannot be known here may
// pass where nftables looks again.
once_ int belongs(struct xdp_md *ctx, const struct packet *p)
{
	struct bpf_sock_tuple t = {};
	__u32 state;

	if (!p)
		return 1;
	if (config.flags & VLANS && p->vlan[0] | p->vlan[1])
		return 1; // a socket may be bound to the device
	tuple_of(p, &t);
	state = p->proto == IPPROTO_TCP ? tcp_socket(ctx, p, &t) : udp_socket(ctx, p, &t);
	if (state && state != TCP_LISTEN && state != TCP_CLOSE)
		return 1;
	if (was_sent(p))
		return 1;
	switch (flow_of(ctx, p, &t)) {
	case REPLY_FLOW:
	case LIVE_FLOW:
	case NATED_FLOW:
		return 1;
	case FLOW_UNKNOWN: // of TCP only a SYN opens anything, and no flags: a fragment
		if (config.flags & NFTABLES || (p->proto == IPPROTO_TCP && p->flags))
			return 1;
		break;
	case NO_FLOW: // nothing may be tracked at all
		break;
	default:
		return 0;
	}
	return p->proto == IPPROTO_UDP && ephemeral(p->dport); // an answer to an unconnected socket of ours
}
