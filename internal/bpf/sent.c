//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// What leaves by an interface: see sent.h. Of TCP, of which sockets tell most, only what
// begins or ends a connection is kept.
#include "sent.h"

enum { TCX_NEXT = -1 };

// Context of a classifier, as far as needed. protocol is in network byte order.
struct __sk_buff {
	__u32 len, pkt_type, mark, queue_mapping, protocol;
	__u32 vlan_present, vlan_tci, vlan_proto, priority;
	__u32 ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid;
	__u32 data, data_end;
};

enum { IP_OFFSET = 0x1fff };

// is_kept: an abort carries a number of ours, what answers a stray SYN none (RFC 9293
// section 3.10.7.1), and anybody can bring that about.
inline_ int is_kept(const __u8 *tcp)
{
	__u8 flags = tcp[13];

	if (flags & F_RST)
		return flags & F_ACK && be32(tcp + 4);
	return flags & F_FIN || (flags & (F_SYN | F_ACK)) == F_SYN;
}

once_ int keep(const struct flow_words *f)
{
	__u32 now = bpf_ktime_get_coarse_ns() >> SENT_UNIT, oldest = 0, age, most = 0;
	struct sent_line *line;
	struct seed *seed;
	__u64 hash, as;
	__u32 zero = 0;

	if (!f)
		return 0;
	seed = bpf_map_lookup_elem(&seeds, &zero);
	if (!seed)
		return 0;
	hash = hash_of_flow(f, seed->hash[0], seed->hash[1]);
	as = hash >> 32 << 32 | now;
	line = sent_line(hash);
	if (!line)
		return 0;
	for (int i = 0; i < SENT_FLOWS; i++) {
		if (line->flow[i] == as)
			return 0;
		age = line->flow[i] >> 32 == hash >> 32 ? ~0 : now - (__u32)line->flow[i];
		if (age >= most) {
			most = age;
			oldest = i;
		}
	}
	// Two CPUs may meet here: then one of two flows is kept with its next packet.
	line->flow[oldest & (SENT_FLOWS - 1)] = as;
	return 0;
}

SEC("tc")
int remember(struct __sk_buff *skb)
{
	__u8 *at = (void *)(unsigned long)skb->data + 14, *end = (void *)(unsigned long)skb->data_end, *ip = at;
	struct addr local = {}, remote = {};
	struct flow_words f;
	__u8 proto;

	if (skb->protocol == htons(ETH_IPV4)) {
		if (at + 20 > end)
			return TCX_NEXT;
		proto = ip[9];
		if (be16(ip + 6) & IP_OFFSET)
			return TCX_NEXT;
		at += (ip[0] & 15) * 4;
	} else if (skb->protocol == htons(ETH_IPV6)) {
		if (at + 48 > end)
			return TCX_NEXT;
		proto = ip[6];
		at += 40;
		if (proto == FRAGMENT) {
			if (be16(ip + 42) & ~7)
				return TCX_NEXT;
			proto = ip[40];
			at += 8;
		}
	} else {
		return TCX_NEXT;
	}
	if (proto == IPPROTO_TCP) {
		if (at + 20 > end || !is_kept(at))
			return TCX_NEXT;
	} else if (proto != IPPROTO_UDP || at + 8 > end) {
		return TCX_NEXT;
	}
	if (skb->mark == TRAP_MARK)
		return TCX_NEXT; // of a trap socket of ours
	if (skb->protocol == htons(ETH_IPV4)) {
		local.w[2] = remote.w[2] = htonl(0xffff);
		__builtin_memcpy(&local.w[3], ip + 12, 4);
		__builtin_memcpy(&remote.w[3], ip + 16, 4);
	} else {
		__builtin_memcpy(&local, ip + 8, 16);
		__builtin_memcpy(&remote, ip + 24, 16);
	}
	flow_words(&f, &remote, &local, be16(at + 2), be16(at), proto);
	keep(&f);
	return TCX_NEXT;
}

char terms[] SEC("license") = "Dual BSD/GPL";
