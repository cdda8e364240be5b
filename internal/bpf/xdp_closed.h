//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// What begins something where nobody is, and is no trap: it is told of, and that is
// all. Packets of connections cost one look at their flags, flows of datagrams one
// at an array; a socket is looked for where something begins.
#pragma once
#include "xdp_events.h"
#include "xdp_served.h"
#include "xdp_sets.h"

enum { SCTP_INIT = 1, SCTP_COOKIE_ECHO = 10 }; // RFC 9260 section 3.2
enum { ECHO = 8, TIMESTAMP = 13, MASK = 17, ECHO_V6 = 128 }; // requests: RFC 792, 950, 4443

// spoken: IP protocols (IANA) in which stacks, tunnels and routing daemons may have
// something to say to a host; detect.spoken has the same.
inline_ int spoken(__u8 proto)
{
	switch (proto) {
	case 2: case 4: case 33: case 41: case 46: case 47: case 50: case 51: // IGMP, IP, DCCP, IPv6, RSVP, GRE, ESP, AH
	case 59: case 88: case 89: case 94: case 97: // no next header, EIGRP, OSPF, IPIP, EtherIP
	case 103: case 108: case 112: case 115: case 136: case 137: case 139: case 140: // PIM, IPComp, VRRP, L2TP, UDP-Lite, MPLS, HIP, Shim6
		return 1;
	}
	return 0;
}

// begins reports whether p, of which no connection is known, could begin something:
// what may be an answer, or the tail of a connection, does not.
inline_ int begins(const struct packet *p)
{
	switch (p->proto) {
	case IPPROTO_TCP:
		return !(p->flags & (F_ACK | F_RST)) && (bare_syn(p) || !ephemeral(p->dport));
	case IPPROTO_UDP:
		return !ephemeral(p->dport) && !is_discovery(p);
	case IPPROTO_SCTP:
		return p->type == SCTP_INIT || p->type == SCTP_COOKIE_ECHO;
	}
	if (is_icmp(p))
		return p->ip & IS_V6 ? p->type == ECHO_V6 : p->type == ECHO || p->type == TIMESTAMP || p->type == MASK;
	return !spoken(p->proto);
}

// settled_as is how settled has the destination of p for the second that it is.
// Nobody but this host decides what gets in: no hash needs a key.
inline_ __u64 settled_as(const struct packet *p, __u64 now)
{
	__u32 dst = p->dst.w[0] ^ p->dst.w[1] ^ p->dst.w[2] ^ p->dst.w[3];

	return (__u64)dst << 32 | (__u32)p->dport << 16 | ((now >> 30 << 1 | (p->proto == IPPROTO_UDP)) & 0xffff);
}

inline_ __u64 *settled_at(__u64 as)
{
	__u32 i = (as >> 16 ^ as >> 32 ^ as >> 48) % SETTLED;

	return bpf_map_lookup_elem(&settled, &i);
}

// again reports whether the source of p has asked for the same, at the same
// address, within a minute or so.
once_ int again(const struct packet *p, __u64 now)
{
	struct flow_words f;
	__u64 h, *at;
	__u32 i;

	if (!p)
		return 0;
	f.w[0] = p->src.d[0];
	f.w[1] = p->src.d[1];
	f.w[2] = p->dst.d[0];
	f.w[3] = p->dst.d[1];
	f.w[4] = (now >> 36) << 32 | (__u32)p->dport << 16 | (__u32)p->type << 8 | p->proto;
	h = hash_of_flow(&f, config.hash[0], config.hash[1]);
	i = h % ASKED;
	at = bpf_map_lookup_elem(&asked, &i);
	if (!at || *at == h)
		return 1;
	*at = h;
	return 0;
}

inline_ int has_port(const struct packet *p) { return p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP; }

// tell_closed tells of p, if a host would take it: what none takes asks for nothing.
once_ int tell_closed(struct xdp_md *ctx, const struct packet *p, __u64 now, __u8 what)
{
	if (!p)
		return 0;
	if (p->marks & (BAD_LENGTH | BAD_CHECKSUM | SHORT_PAYLOAD) || bad_header(ctx, p) || bad_segment(ctx, p)) {
		count(C_BAD);
		return 0;
	}
	if (!has_port(p) && again(p, now))
		return 0;
	if (what == PROBE)
		count(C_CLOSED);
	return tell(ctx, p, what | NO_TRAP, PARDON, is_peer(p));
}

// closed tells of p, which begins something, if nobody is there.
once_ int closed(struct xdp_md *ctx, struct packet *p, __u64 now)
{
	__u64 as, *at;
	enum use use;

	if (!p)
		return 0;
	if (!has_port(p))
		return is_own(p) ? tell_closed(ctx, p, now, PROBE) : 0;
	as = settled_as(p, now);
	at = settled_at(as);
	if (!at || *at == as || !is_own(p))
		return 0;
	use = use_of(ctx, p, p->proto == IPPROTO_TCP && bare_syn(p));
	if (use == FREE || use == UNKNOWN)
		return tell_closed(ctx, p, now, use == FREE ? PROBE : QUESTION);
	*at = as;
	return 0;
}
