//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// What user space has written down of ports and addresses: one look-up each.
#pragma once
#include "xdp_packet.h"

inline_ int is_trap_port(__u8 proto, __u16 port)
{
	__u32 which = proto == IPPROTO_UDP;
	struct ports *t = bpf_map_lookup_elem(&traps, &which);

	return t && t->word[port >> 6 & 1023] >> (port & 63) & 1;
}

inline_ int is_trap(const struct packet *p)
{
	return (p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP) && is_trap_port(p->proto, p->dport);
}

inline_ int is_spared(const struct packet *p)
{
	struct spare_key key = {.bits = 128};

	__builtin_memcpy(key.addr, &p->src, 16);
	return bpf_map_lookup_elem(&spare, &key) != NULL;
}

// exempt reports whether no ban keeps p out.
once_ int exempt(const struct packet *p) { return !p || is_discovery(p) || is_spared(p); }

// Keys are copied: before Linux 6.1 the verifier wants them on the stack, not where
// a pointer that was handed over leads.
once_ int is_own(const struct packet *p)
{
	struct addr key;

	if (!p)
		return 0;
	key = p->dst;
	return bpf_map_lookup_elem(&own, &key) != NULL;
}

once_ int is_peer(const struct packet *p)
{
	struct addr key;

	if (!p)
		return 0;
	key = p->src;
	return bpf_map_lookup_elem(&peers, &key) != NULL;
}
