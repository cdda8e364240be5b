//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// Who is kept out: the bans of user space, and those that the program makes by
// itself until user space has decided.
#pragma once
#include "xdp_hash.h"
#include "xdp_packet.h"

// What keeps a source out. Functions that the verifier looks at by themselves can
// take it, as it holds no pointer: what they find out about the source they leave
// in learned.
struct standing {
	__u8 strength, protos, marks;
	__u8 decided; // by user space: a ban, or a pardon
	__u8 learned; // marks to be set
	__u8 dropped; // the packet has been
};

// Where it is written down: one of the two, or nowhere.
struct account {
	struct ban *ban;
	struct hit *hit;
};

inline_ int same(const struct addr *a, const struct addr *b) { return a->d[0] == b->d[0] && a->d[1] == b->d[1]; }

// obey takes the ban or pardon under key into s. Of that of an address and that of
// its network the stronger one holds: neither lifts the other.
inline_ void obey(struct standing *s, struct account *in, const struct ban_key *key, __u64 now)
{
	struct ban *b = bpf_map_lookup_elem(&bans, key);

	if (!b || b->until <= now || b->strength < s->strength)
		return;
	s->protos = b->protos | (b->strength == s->strength ? s->protos : 0);
	s->strength = b->strength;
	s->marks = b->marks;
	s->decided = 1;
	in->ban = b;
}

// obey_net does so with the narrowest range banned that has src. A ban of src that is as
// hard goes on to be what counts the packet.
inline_ void obey_net(struct standing *s, struct account *in, const struct addr *src, __u64 now)
{
	struct spare_key key = {.bits = 128};
	struct net_ban *n;
	__u8 strength;

	__builtin_memcpy(key.addr, src, 16);
	n = bpf_map_lookup_elem(&nets, &key);
	if (!n)
		return;
	strength = n->full > now ? FULL : n->soft > now ? SOFT : PARDON;
	if (strength == PARDON || strength < s->strength)
		return;
	s->protos = BAN_ALL;
	if (strength == s->strength)
		return;
	s->strength = strength;
	s->marks = n->ban.marks;
	s->decided = 1;
	in->ban = &n->ban;
}

// hit_of says where in the hits that of src is: 0, or 1 and HITS times the bucket
// and the place in it.
once_ __u32 hit_of(const struct addr *src, __u64 now)
{
	struct bucket *b;
	__u32 at;

	if (!src)
		return 0;
	at = hash_of(src) % HIT_BUCKETS;
	b = bpf_map_lookup_elem(&hits, &at);
	if (!b)
		return 0;
	for (int i = 0; i < HITS; i++) {
		if (same(&b->hit[i].src, src) && b->hit[i].until > now)
			return 1 + at * HITS + i;
	}
	return 0;
}

// find_standing says what keeps a source out. What nobody has decided on yet is asked
// last, and not at all while no hit is recent.
inline_ void find_standing(const struct addr *src, int v6, __u64 now, struct standing *s, struct account *in)
{
	struct ban_key key = {.addr = *src, .bits = 128};
	__u32 banned = config.bans;
	struct bucket *b;
	__u32 at, bucket;

	if (banned) {
		obey(s, in, &key, now);
		if (v6) {
			key.addr.d[1] = 0;
			key.bits = 64;
			obey(s, in, &key, now);
		}
		if (banned & BANNED_NETS)
			obey_net(s, in, src, now);
		if (s->decided)
			return;
	}
	if (hits_until <= now || !(at = hit_of(src, now)))
		return;
	at--;
	bucket = at / HITS;
	b = bpf_map_lookup_elem(&hits, &bucket);
	if (!b)
		return;
	in->hit = &b->hit[at % HITS];
	s->strength = in->hit->strength;
	s->protos = in->hit->protos;
	s->marks = in->hit->marks;
}

// book writes down what has become of a packet that found s.
inline_ void book(const struct standing *s, struct account *in)
{
	if (in->ban) {
		if (s->dropped)
			__sync_fetch_and_add(&in->ban->dropped, 1);
		if (s->learned & ~s->marks)
			in->ban->marks |= s->learned;
	} else if (in->hit) {
		if (s->dropped)
			__sync_fetch_and_add(&in->hit->dropped, 1);
		if (s->learned & ~s->marks)
			in->hit->marks |= s->learned;
	}
}

// provisional begins a ban that ends by itself, or adds to one that runs: a soft
// one of other protocols, whose packets it let pass; what that has counted goes on.
// Where the source's bucket has
// no room for it, which forged sources can bring about, the packet at hand is
// dropped and told of all the same.
once_ int provisional(const struct addr *src, __u64 now, __u8 strength, __u8 protos, __u8 marks)
{
	__u64 until = now + config.provisional;
	struct hit *free = NULL;
	struct bucket *in;
	__u32 at;

	if (!src)
		return 0;
	at = hash_of(src) % HIT_BUCKETS;
	in = bpf_map_lookup_elem(&hits, &at);
	if (!in)
		return 0;
	bpf_spin_lock(&in->lock);
	for (int i = 0; i < HITS; i++) {
		struct hit *h = &in->hit[i];

		if (same(&h->src, src)) {
			free = h;
			break;
		}
		if (!free && h->until <= now)
			free = h;
	}
	if (free) {
		if (free->until <= now) { // readers take no lock: it is nobody's until it is whole
			free->until = 0;
			COMPILER_BARRIER();
			free->src = *src;
			free->protos = free->marks = 0;
			free->dropped = 0;
		}
		free->protos = protos | (free->strength == strength ? free->protos : 0);
		free->strength = strength;
		free->marks |= marks;
		__sync_fetch_and_add(&free->dropped, 1);
		COMPILER_BARRIER();
		free->until = until;
	}
	bpf_spin_unlock(&in->lock);
	if (!free)
		return 0;
	if (hits_until < until)
		hits_until = until;
	return 1;
}
