//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// What comes back in a flow in which this host has sent something.
#pragma once
#include "xdp_packet.h"

// was_sent reports whether p comes back in a flow of ours, which then lasts on. A SYN
// begins one.
once_ int was_sent(const struct packet *p)
{
	__u32 now = bpf_ktime_get_coarse_ns() >> SENT_UNIT;
	struct sent_line *line;
	struct flow_words f;
	__u64 hash;

	if (!p || (p->proto == IPPROTO_TCP && bare_syn(p)))
		return 0;
	flow_words(&f, &p->src, &p->dst, p->sport, p->dport, p->proto);
	hash = hash_of_flow(&f, config.hash[0], config.hash[1]);
	line = sent_line(hash);
	if (!line)
		return 0;
	for (int i = 0; i < SENT_FLOWS; i++)
		if (line->flow[i] >> 32 == hash >> 32 && now - (__u32)line->flow[i] <= SENT_FOR) {
			line->flow[i] = hash >> 32 << 32 | now;
			return 1;
		}
	return 0;
}
