//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// Who is kept out: the bans of user space, and those that the program makes by
// itself until user space has decided.
#pragma once
#include "xdp_packet.h"
#include "xdp_hash.h"

// What keeps a source out. One of ban and hit is where to count, or neither.
struct standing {
	struct ban *ban;
	struct bucket *in;
	__u32 slot; // of in
	__u8 strength, protos;
};

inline_ int same(const struct addr *a, const struct addr *b) { return a->d[0] == b->d[0] && a->d[1] == b->d[1]; }

once_ __u32 hash_of(const struct addr *a)
{
	return !a ? 0 : siphash(config.hash[0], config.hash[1], a->d, 2);
}

inline_ struct bucket *bucket_of(const struct addr *src)
{
	__u32 i = hash_of(src) % HIT_BUCKETS;

	return bpf_map_lookup_elem(&hits, &i);
}

// obey takes the ban or pardon under key into s. Of that of an address and that of
// its network the stronger one holds: neither lifts the other.
inline_ void obey(struct standing *s, const struct ban_key *key, __u64 now)
{
	struct ban *b = bpf_map_lookup_elem(&bans, key);

	if (!b || b->until <= now || b->strength < s->strength)
		return;
	s->protos = b->protos | (b->strength == s->strength ? s->protos : 0);
	s->strength = b->strength;
	s->ban = b;
}

// find_standing says what keeps the source of p out. What nobody has decided on
// yet is asked last, and not at all while no hit is recent.
inline_ void find_standing(const struct packet *p, __u64 now, struct standing *s)
{
	struct ban_key key = {.addr = p->src, .bits = 128};

	if (config.bans) {
		obey(s, &key, now);
		if (p->ip & IS_V6) {
			key.addr.d[1] = 0;
			key.bits = 64;
			obey(s, &key, now);
		}
		if (s->ban)
			return;
	}
	if (hits_until <= now || !(s->in = bucket_of(&p->src)))
		return;
	for (int i = 0; i < HITS; i++) {
		const struct hit *h = &s->in->hit[i];

		if (same(&h->src, &p->src) && h->until > now) {
			s->strength = h->strength;
			s->protos = h->protos;
			s->slot = i;
			return;
		}
	}
	s->in = NULL;
}

// dropped counts a packet that s kept out.
inline_ void dropped(struct standing *s, __u32 counter)
{
	count(counter);
	if (s->ban)
		__sync_fetch_and_add(&s->ban->dropped, 1);
	else if (s->in && s->slot < HITS)
		__sync_fetch_and_add(&s->in->hit[s->slot].dropped, 1);
}

// marked sets marks of a source that is kept out, and reports whether one of
// them was missing.
inline_ int marked(struct standing *s, __u8 marks)
{
	__u8 *at = s->ban ? &s->ban->marks : s->in && s->slot < HITS ? &s->in->hit[s->slot].marks : NULL;

	if (!at || (*at & marks) == marks)
		return 0;
	*at |= marks;
	return 1;
}

inline_ __u8 marks_of(const struct standing *s)
{
	return s->ban ? s->ban->marks : s->in && s->slot < HITS ? s->in->hit[s->slot].marks : 0;
}

// provisional begins a ban that ends by itself, or adds to one that runs: a soft
// one of other protocols, whose packets it let pass; what that has counted goes on.
// Where the source's bucket has
// no room for it, which forged sources can bring about, the packet at hand is
// dropped and told of all the same.
inline_ int provisional(const struct addr *src, __u64 now, __u8 strength, __u8 protos, __u8 marks)
{
	struct bucket *in = bucket_of(src);
	struct hit *free = NULL;
	__u64 until = now + config.provisional;

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
