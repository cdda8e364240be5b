//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// The challenge: a SYN for a trap is answered with a SYN-ACK whose number only
// this host can make, and whoever brings it back in an ACK is proved to be where
// he says. It is made of the packet, a key and the time, so nothing is kept; who
// connects is left with a connection that exists on his side only.
#pragma once
#include "xdp_events.h"
#include "xdp_served.h"
#include "xdp_sets.h"

// What answers may cost. A budget has a rate, and what may be spent of it at once.
enum {
	SECOND = 1000000000,
	REPLY = SECOND / 10000, REPLIES = SECOND, // all answers: 10,000/s, 10,000 at once
	NET_REPLY = SECOND / 100, NET_REPLIES = 2 * SECOND, // to an IPv4 /24 or IPv6 /64: 100/s, 200 at once
	BAD_ACK = SECOND / 1000, BAD_ACKS = SECOND, // numbers that are not ours: 1,000/s, 1,000 at once
	PAUSE = 60, // seconds without challenge for more of these
};

enum { SLOT_SHIFT = 33 }; // a number is good for the slot of 8.6 s it was made in, and the next

enum { SHORTEST = 60 }; // frame of Ethernet, without its check sequence

// A budget, as the time up to which it is spent (the generic cell rate algorithm).
struct budget {
	struct bpf_spin_lock lock;
	__u32 pad;
	__u64 spent;
};

enum { NETWORKS = 1 << 12, ALL_REPLIES = NETWORKS, ALL_BAD_ACKS, BUDGETS };

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, BUDGETS); // one a network, by hash, and two for all
	__type(key, __u32);
	__type(value, struct budget);
} budgets SEC(".maps");

// No challenge before, for too many bad ACKs.
volatile __u64 paused_until;

inline_ int paused(__u64 now) { return now < paused_until; }

// spend takes one of a budget that is spent at one per each, and reports whether
// it was there. The budget is that of all CPUs; while nothing is left of it, which
// in a flood is most of the time, nobody waits for the lock.
once_ int spend(__u32 which, __u64 now, __u64 each, __u64 ahead)
{
	struct budget *b = bpf_map_lookup_elem(&budgets, &which);
	__u64 spent;
	int there;

	if (!b || b->spent + each > now + ahead)
		return 0;
	bpf_spin_lock(&b->lock);
	spent = (b->spent > now ? b->spent : now) + each;
	there = spent <= now + ahead;
	if (there)
		b->spent = spent;
	bpf_spin_unlock(&b->lock);
	return there;
}

// unicast reports whether a host can have the source address of p: what others
// forge must not make us call out to a group, or to ourselves.
inline_ int unicast(const struct packet *p)
{
	__u8 first = p->ip & IS_V6 ? p->src.b[0] : p->src.b[12];

	if (same(&p->src, &p->dst))
		return 0;
	if (p->ip & IS_V6)
		return first != 0xff && (p->src.d[0] || p->src.w[2]); // neither :: nor ::1
	return first && first != 127 && first < 224;
}

// may_answer reports whether p, as it came, could reach a socket and be answered
// in place, and pays for the answer: out of the budget of the network first, so
// that one network cannot spend what is for all.
once_ int may_answer(const struct packet *p, __u64 now)
{
	struct addr network = {};

	if (!p || p->ip & HAS_OPTIONS || p->marks & (BAD_LENGTH | SHORT_PAYLOAD | EXT_HEADERS) || !unicast(p))
		return 0;
	network.d[0] = p->ip & IS_V6 ? p->src.d[0] : p->src.w[3] & htonl(0xffffff00);
	return spend(hash_of(&network) % NETWORKS, now, NET_REPLY, NET_REPLIES) &&
	       spend(ALL_REPLIES, now, REPLY, REPLIES);
}

// cookie is the number for the 4-tuple of p in a slot of time. Its lowest bits say
// which slot and key it was made with: checking one costs one hash, and guessing
// one takes 2^30 trials. It is in host byte order.
once_ __u32 cookie(const struct packet *p, __u32 slot, __u32 key)
{
	struct flow_words f;

	if (!p)
		return 0;
	key &= 1;
	f.w[0] = p->src.d[0];
	f.w[1] = p->src.d[1];
	f.w[2] = p->dst.d[0];
	f.w[3] = p->dst.d[1];
	f.w[4] = (__u64)p->sport << 48 | (__u64)p->dport << 32 | slot;
	return ((__u32)hash_of_flow(&f, config.keys[key][0], config.keys[key][1]) & ~3U) | key << 1 | (slot & 1);
}

// Headers, everything in network byte order.
struct ipv4_header {
	__u8 version_ihl, tos;
	__u16 length, id, fragment;
	__u8 ttl, proto;
	__u16 check;
	__u32 src, dst;
};

struct ipv6_header {
	__u8 version, flow[3];
	__u16 length;
	__u8 next, hops;
	struct addr src, dst;
};

struct tcp_header {
	__u16 sport, dport;
	__u32 seq, ack;
	__u8 offset, flags;
	__u16 window, check, urgent;
};

enum { TCP_BYTES = sizeof(struct tcp_header) };

inline_ __u16 checksum(__s64 sum) { return ~fold(sum); }

// put_ip writes the IP header of the answer to p.
inline_ long put_ip(struct xdp_md *ctx, const struct packet *p)
{
	if (p->ip & IS_V6) {
		struct ipv6_header h = {
			.version = 0x60, .length = htons(TCP_BYTES), .next = IPPROTO_TCP, .hops = 64, .src = p->dst, .dst = p->src,
		};
		return bpf_xdp_store_bytes(ctx, p->network, &h, sizeof(h));
	}
	struct ipv4_header h = {
		.version_ihl = 0x45, .length = htons(sizeof(h) + TCP_BYTES), .fragment = htons(0x4000), // DF
		.ttl = 64, .proto = IPPROTO_TCP, .src = p->dst.w[3], .dst = p->src.w[3],
	};
	h.check = checksum(bpf_csum_diff(NULL, 0, &h, sizeof(h), 0));
	return bpf_xdp_store_bytes(ctx, p->network, &h, sizeof(h));
}

// turn_round makes the frame of p the answer to it. It gives XDP_TX, or -1 when
// that cannot be done: then the frame is as it was.
once_ int turn_round(struct xdp_md *ctx, const struct packet *p, __u32 seq, __u32 ack, __u32 flags)
{
	struct {
		struct tcp_header h;
		__u8 padding[8];
	} tcp = {};
	__u32 len = bpf_xdp_get_buff_len(ctx), whole, keep;
	__u8 mac[12], back[12];
	__u64 tail;

	if (!p || bpf_xdp_load_bytes(ctx, 0, mac, sizeof(mac)) || mac[0] & 1)
		return -1; // a frame for everybody
	whole = p->transport + TCP_BYTES;
	keep = len < SHORTEST ? len : SHORTEST;
	if (keep < whole)
		keep = whole;
	tail = TCP_BYTES + keep - whole;
	OPAQUE_TO_COMPILER(tail);
	if (tail < TCP_BYTES || tail > sizeof(tcp) || bpf_xdp_adjust_tail(ctx, keep - len))
		return -1;

	__builtin_memcpy(back, mac + 6, 6);
	__builtin_memcpy(back + 6, mac, 6);
	tcp.h.sport = htons(p->dport);
	tcp.h.dport = htons(p->sport);
	tcp.h.seq = htonl(seq);
	tcp.h.ack = htonl(ack);
	tcp.h.offset = TCP_BYTES / 4 << 4;
	tcp.h.flags = flags;
	tcp.h.window = flags & F_RST ? 0 : htons(64240); // as Linux offers
	// The pseudo-header: both addresses (the 0xffff in front of an IPv4 address is
	// zero in this arithmetic), length and protocol.
	tcp.h.check = checksum(bpf_csum_diff(NULL, 0, &tcp.h, TCP_BYTES,
		bpf_csum_diff(NULL, 0, (void *)&p->src, 2 * sizeof(p->src), htonl(TCP_BYTES + IPPROTO_TCP))));
	if (bpf_xdp_store_bytes(ctx, 0, back, sizeof(back)) || put_ip(ctx, p) ||
	    bpf_xdp_store_bytes(ctx, p->transport, &tcp, tail))
		return XDP_DROP; // never: there is room
	return XDP_TX;
}

// ask answers p if it is a bare SYN, for a trap where nobody is; else it gives -1,
// and the frame is as it was.
once_ int ask(struct xdp_md *ctx, struct packet *p, __u64 now)
{
	int verdict = -1;

	if (!p || !(config.flags & VERIFY) || p->proto != IPPROTO_TCP || !bare_syn(p) || use_of(ctx, p, 1) != FREE)
		return -1;
	if (!paused(now) && may_answer(p, now))
		verdict = turn_round(ctx, p, cookie(p, now >> SLOT_SHIFT, config.key), p->seq + 1, F_SYN | F_ACK);
	count(verdict == XDP_TX ? C_CHALLENGED : C_UNCHALLENGED);
	return verdict;
}

// challenge is ask, and marks the source. The verdict is otherwise where nothing
// was to be asked, or could be.
inline_ int challenge(struct xdp_md *ctx, struct packet *p, struct standing *s, __u64 now, int otherwise)
{
	int verdict = ask(ctx, p, now);

	if (verdict < 0)
		return otherwise;
	s->learned |= CHALLENGED;
	return verdict;
}

// reset ends a connection that is more than an ACK long.
inline_ int reset(struct xdp_md *ctx, const struct packet *p, __u64 now)
{
	if (!may_answer(p, now) || turn_round(ctx, p, p->ack, 0, F_RST) != XDP_TX) // RFC 9293 section 3.5.2
		return XDP_DROP;
	count(C_RESETS);
	return XDP_TX;
}

// echoed looks at an ACK for a trap where nobody is. A right number is proof with
// every packet that brings it: there is an event for each, of which the reader
// needs one. Nothing of it reaches the stack, which would track the connection.
inline_ int echoed(struct xdp_md *ctx, const struct packet *p, __u64 now)
{
	__u32 number = p->ack - 1, slot = now >> SLOT_SHIFT;

	slot -= (slot ^ number) & 1;
	if (cookie(p, slot, number >> 1) != number) {
		count(C_BAD_ACKS);
		if (!spend(ALL_BAD_ACKS, now, BAD_ACK, BAD_ACKS)) {
			paused_until = now + (__u64)PAUSE * SECOND;
			count(C_PAUSES);
		}
		return -1;
	}
	count(C_VERIFIED);
	tell(ctx, p, VERIFIED, PARDON, is_peer(p));
	return p->payload || p->flags & F_FIN ? reset(ctx, p, now) : XDP_DROP;
}

// nobody reports whether nobody is at the port of p. Where connection tracking
// cannot be asked, no socket is enough, or numbers could be tried there without end.
inline_ int nobody(struct xdp_md *ctx, struct packet *p)
{
	enum use use = use_of(ctx, p, 0);

	return (use == FREE || (use == UNKNOWN && !elsewhere(p))) && is_own(p);
}

// react gives the verdict on p, for a trap, if it reacts to a challenge, else -1;
// marks are those of its source. Who is at the port is asked before the number is
// looked at: that must be known for a right one, which an ordinary packet may have
// by chance, as for a wrong one, which only counts where nobody is.
once_ int react(struct xdp_md *ctx, struct packet *p, __u64 now, __u8 marks)
{
	if (!p || !(config.flags & VERIFY) || p->proto != IPPROTO_TCP)
		return -1;
	if ((p->flags & (F_SYN | F_ACK | F_RST)) == F_ACK)
		return !paused(now) && nobody(ctx, p) ? echoed(ctx, p, now) : -1;
	if (!(p->flags & F_RST) || (marks & (CHALLENGED | ALIVE)) != CHALLENGED || !nobody(ctx, p))
		return -1;
	count(C_LIVING);
	tell(ctx, p, LIVING, PARDON, is_peer(p));
	return XDP_DROP;
}

// answered is react, and marks the source of a RST, which a host sends that has
// asked for no connection: its address is in use. That is all a RST says, and no
// proof: who forges a SYN can forge its RST.
inline_ int answered(struct xdp_md *ctx, struct packet *p, struct standing *s, __u64 now)
{
	int verdict = react(ctx, p, now, s->marks);

	if (verdict >= 0 && p->flags & F_RST)
		s->learned |= ALIVE;
	return verdict;
}
