//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// What user space is told, and what is counted where it cannot be told.
#pragma once
#include "xdp_bans.h"

enum { CHECKSUMMED = 60 }; // the longest IPv4 header

inline_ __u16 fold(__s64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff);
	return (sum & 0xffff) + (sum >> 16);
}

// bad_header reports whether the checksum of an IPv4 header is wrong.
once_ int bad_header(struct xdp_md *ctx, const struct packet *p)
{
	__u32 header[CHECKSUMMED / 4] = {};
	__u64 len;

	if (!p)
		return 0;
	len = (__u32)(p->transport - p->network);
	OPAQUE_TO_COMPILER(len);
	if (p->ip & IS_V6 || len < 20 || len > CHECKSUMMED)
		return 0;
	if (bpf_xdp_load_bytes(ctx, p->network, header, len))
		return 0;
	return fold(bpf_csum_diff(NULL, 0, header, sizeof(header), 0)) != 0xffff;
}

enum { SUMMED = 64, SUMS = 24 }; // bytes at a time, and how often: a frame of the usual length

// What is to be summed up yet, and the sum so far.
struct summing {
	__u32 at, left, sum;
};

// sum_part adds the next bytes of the frame, SUMMED of them or what is left, and
// reports whether there are more to come. What cannot be read stays in left.
once_ int sum_part(struct xdp_md *ctx, struct summing *s)
{
	__u8 part[SUMMED] = {};
	__u64 n;

	if (!s)
		return 0;
	n = s->left < SUMMED ? s->left : SUMMED;
	OPAQUE_TO_COMPILER(n);
	if (n < 1 || n > SUMMED || bpf_xdp_load_bytes(ctx, s->at, part, n))
		return 0;
	s->sum = bpf_csum_diff(NULL, 0, (void *)part, sizeof(part), s->sum);
	s->at += n;
	s->left -= n;
	return s->left;
}

// bad_segment reports whether the checksum of a TCP segment, a UDP datagram or an
// ICMP message is wrong. A neighbour on this machine leaves it to a card that there is none of:
// then the sum of the pseudo-header stands there, and is right. Behind extension
// headers the destination may be another one: nothing is known.
once_ int bad_segment(struct xdp_md *ctx, const struct packet *p)
{
	struct summing s = {};
	__u8 head[20] = {};
	__u16 field;
	int udp;

	if (!p || p->marks & (EXT_HEADERS | SHORT_PAYLOAD))
		return 0;
	s.at = p->transport;
	udp = p->proto == IPPROTO_UDP;
	if (p->proto == IPPROTO_TCP ? bpf_xdp_load_bytes(ctx, s.at, head, 20) : bpf_xdp_load_bytes(ctx, s.at, head, 8))
		return 0;
	if (p->proto == IPPROTO_TCP) {
		s.left = 20 + p->options_len + p->payload;
		field = *(__u16 *)(head + 16);
	} else if (udp) {
		s.left = be16(head + 4);
		field = *(__u16 *)(head + 6);
	} else if (is_icmp(p)) {
		field = *(__u16 *)(head + 2);
	} else {
		return 0;
	}
	if (!s.left)
		s.left = 8 + p->payload;
	if ((udp && !field) || s.left > SUMMED * SUMS)
		return 0; // there is none, or the sum would take too long
	if (p->proto != IPPROTO_ICMP) { // that one has no pseudo-header, RFC 792
		// As in turn_round.
		s.sum = bpf_csum_diff(NULL, 0, (void *)&p->src, 2 * sizeof(p->src), htonl(s.left + p->proto));
		if (fold(s.sum) == field)
			return 0;
	}
	for (int i = 0; i < SUMS && sum_part(ctx, &s); i++)
		;
	return !s.left && fold(s.sum) != 0xffff;
}

// worker_of says who hears of the source of p. A host of IPv6 has as many addresses
// of its /64 as it likes (RFC 4291 section 2.5.1), and is one source.
once_ __u32 worker_of(const struct packet *p)
{
	__u32 n = config.workers;
	struct addr source;

	if (!p || n <= 1)
		return 0;
	source = p->src;
	if (p->ip & IS_V6)
		source.d[1] = 0;
	return (hash_of(&source) >> 16) % n;
}

// wake wakes the worker if it sleeps: one that is awake looks again before it does.
// It comes behind the hand-over of a record, which is a full barrier, as the
// worker's word is before its last look at the ring: one of the two sees what the
// other has written. Only records wake, so an empty one is begun and taken back.
inline_ void wake(void *ring, __u32 worker)
{
	struct sleeper *s = bpf_map_lookup_elem(&sleepers, &worker);
	void *none;

	if (!s || !s->asleep)
		return;
	none = bpf_ringbuf_reserve(ring, 8, 0);
	if (!none)
		return; // the next record tries again
	s->asleep = 0;
	bpf_ringbuf_discard(none, RB_FORCE_WAKEUP);
}

// fill makes an event of p; say adds what it tells.
once_ int fill(struct xdp_md *ctx, const struct packet *p, struct event *e, __u32 worker)
{
	__u64 options;

	if (!p || !e)
		return 0;
	e->time = bpf_ktime_get_ns();
	e->src = p->src;
	e->dst = p->dst;
	e->ifindex = ctx->ingress_ifindex;
	e->seq = p->seq;
	e->ack = p->ack;
	e->ipid = p->ipid;
	e->length = bpf_xdp_get_buff_len(ctx);
	e->times = 1;
	e->sport = p->sport;
	e->dport = p->dport;
	e->flags = p->flags;
	e->window = p->window;
	e->urgent = p->urgent;
	e->payload = p->payload;
	e->vlan[0] = p->vlan[0];
	e->vlan[1] = p->vlan[1];
	e->vlans = p->vlans;
	e->proto = p->proto;
	e->ttl = p->ttl;
	e->ip = p->ip | worker * WORKER;
	e->marks = p->marks;
	e->options_len = 0;
	options = p->options_len;
	OPAQUE_TO_COMPILER(options);
	if (options >= 4 && options <= sizeof(e->options) &&
	    !bpf_xdp_load_bytes(ctx, p->transport + 20, e->options, options)) {
		e->options_len = options;
	} else {
		e->options[0] = p->type;
		e->options[1] = p->code;
	}
	return 0;
}

inline_ void say(struct event *e, __u8 what, __u8 made, int peer)
{
	e->what = what;
	e->made = made;
	if (peer)
		e->ip |= IS_PEER;
}

// Where an event is put together: there is no room for it on the stack. Before Linux
// 6.9 all functions of a chain of calls have 512 bytes, in pieces of 32.
struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct event);
} draft SEC(".maps");

// miss_in counts p in table, under its source; what is of struct event.
inline_ void miss_in(void *table, struct xdp_md *ctx, const struct packet *p, __u8 what, __u8 made, int peer)
{
	struct addr key = p->src; // see is_own
	struct event *e = bpf_map_lookup_elem(table, &key), *first;
	__u32 zero = 0;

	if (!e && (first = bpf_map_lookup_elem(&draft, &zero))) {
		// Another CPU may be as far as this: who comes second finds the entry.
		fill(ctx, p, first, worker_of(p));
		say(first, COUNTED | (what & NO_TRAP), made, peer);
		first->times = 0;
		bpf_map_update_elem(table, &key, first, BPF_NOEXIST);
		e = bpf_map_lookup_elem(table, &key);
	}
	if (e)
		__sync_fetch_and_add(&e->times, 1);
	else
		count(what & NO_TRAP ? C_CLOSED_UNCOUNTED : C_UNCOUNTED);
}

// miss counts a probe that found no room in its ring, under its source.
once_ int miss(struct xdp_md *ctx, const struct packet *p, __u8 what, __u8 made, int peer)
{
	if (!p)
		return 0;
	if (what & NO_TRAP) {
		count(C_CLOSED_COUNTED);
		config.epoch ? miss_in(&closed_odd, ctx, p, what, made, peer) : miss_in(&closed_even, ctx, p, what, made, peer);
	} else {
		count(C_COUNTED);
		config.epoch ? miss_in(&missed_odd, ctx, p, what, made, peer) : miss_in(&missed_even, ctx, p, what, made, peer);
	}
	return 0;
}

// crowded reports whether what is for no trap has had its share of the ring: one
// half. The other is for what is.
inline_ int crowded(void *ring) { return bpf_ringbuf_query(ring, RB_AVAIL_DATA) > bpf_ringbuf_query(ring, RB_RING_SIZE) / 2; }

// tell hands an event to the worker of its source.
once_ int tell(struct xdp_md *ctx, const struct packet *p, __u8 what, __u8 made, int peer)
{
	struct event *e;
	__u32 worker;
	void *ring;

	if (!p)
		return 0;
	worker = worker_of(p);
	ring = bpf_map_lookup_elem(&rings, &worker);
	e = ring && !(what & NO_TRAP && crowded(ring)) ? bpf_ringbuf_reserve(ring, sizeof(*e), 0) : NULL;
	if (!e && (what & ~NO_TRAP) == PROBE)
		return miss(ctx, p, what, made, peer);
	if (!e) {
		count(C_RAW_LOST);
		return 0;
	}
	fill(ctx, p, e, worker);
	say(e, what, made, peer);
	bpf_ringbuf_submit(e, RB_NO_WAKEUP);
	wake(ring, worker);
	count(C_EVENTS);
	return 0;
}

// put_raw hands the n bytes of the frame over, as many as there is room for.
inline_ int put_raw(struct xdp_md *ctx, const struct packet *p, void *ring, __u32 worker, __u64 n, const __u64 room)
{
	struct raw_event *e = ring ? bpf_ringbuf_reserve(ring, sizeof(e->event) + room, 0) : NULL;

	if (!e)
		return 0;
	fill(ctx, p, &e->event, worker);
	say(&e->event, RAW, PARDON, 0);
	OPAQUE_TO_COMPILER(n);
	if (n > room)
		n = room;
	if (n < 1 || bpf_xdp_load_bytes(ctx, 0, e->data, n)) {
		bpf_ringbuf_discard(e, RB_NO_WAKEUP);
		return 0;
	}
	bpf_ringbuf_submit(e, RB_NO_WAKEUP);
	return 1;
}

// tell_raw hands the frame itself over.
once_ int tell_raw(struct xdp_md *ctx, const struct packet *p)
{
	__u64 n = bpf_xdp_get_buff_len(ctx);
	__u32 worker;
	void *ring;

	if (!p)
		return 0;
	worker = worker_of(p);
	ring = bpf_map_lookup_elem(&rings, &worker);
	if (!(n > RAW_SHORT ? put_raw(ctx, p, ring, worker, n, RAW_BYTES) : put_raw(ctx, p, ring, worker, n, RAW_SHORT))) {
		count(C_RAW_LOST);
		return 0;
	}
	wake(ring, worker);
	count(C_EVENTS);
	return 0;
}
