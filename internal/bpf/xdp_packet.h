//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// A packet, and what its fields alone say.
#pragma once
#include "xdp_maps.h"

enum { MAX_TAGS = 2, MAX_EXT = 6 };

enum state {
	NOT_IP,
	DISGUISED, // Linux would find what it is, behind tags that nobody needs
	OPAQUE, // from whom and to whom is known, no more: no host would take it, or it is encrypted
	PARTLY, // user space has to look at it: fragments, long chains of headers
	WHOLE,  // read up to the transport header
};

struct packet {
	struct addr src, dst;
	__u32 seq, ack, ipid;
	__u32 network, transport; // offsets of the headers
	__u16 sport, dport, flags, window, urgent, payload;
	__u16 vlan[MAX_TAGS];
	__u8 vlans, proto, ttl, ip, marks, options_len;
	__u8 type, code; // ICMP; SCTP: type of the first chunk
	__u8 later; // a fragment: where it lies, in 8 bytes, 255 for that and more; 0 for the first
	__u8 asked; // 0, or 1 and its enum use
};

#define NULL ((void *)0)

// is_icmp: that of the packet's own family; the other is a protocol that nobody speaks.
inline_ int is_icmp(const struct packet *p) { return p->proto == (p->ip & IS_V6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP); }

inline_ int bare_syn(const struct packet *p) { return (p->flags & F_SIX) == F_SYN; }

// is_discovery: without neighbour discovery (RFC 4861) a source on our link could
// not be reached at all, whatever its ban leaves it; nor would we keep our address
// without DHCP (RFC 2131, RFC 8415), whose clients take packets below the stack.
inline_ int is_discovery(const struct packet *p)
{
	if (p->proto == IPPROTO_UDP)
		return p->ip & IS_V6 ? p->sport == 547 && p->dport == 546 : p->sport == 67 && p->dport == 68;
	return p->proto == IPPROTO_ICMPV6 && p->ip & IS_V6 && p->type >= 133 && p->type <= 136;
}

// count_here is for where a flood is dropped: a call costs some nanoseconds.
inline_ void count_here(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &which);

	if (n)
		(*n)++;
}

once_ int count(__u32 which)
{
	count_here(which);
	return 0;
}
