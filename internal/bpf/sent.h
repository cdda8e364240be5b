//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// What this host has sent, and to whom: where nothing tracks connections, an answer
// that comes late is known by it, and an exchange of datagrams that goes on. Only what
// leaves gets in. A flow that is pushed out is one that may be banned, no more.
#pragma once
#include "siphash.h"
#include "wire.h"

// 65,536 flows in 512 KiB. A line is half of one of the cache's.
enum { SENT_LINES = 1 << 14, SENT_FLOWS = 4 };

// As long as connection tracking keeps a flow of datagrams that goes both ways: 120 s,
// in units of 2^30 ns.
enum { SENT_UNIT = 30, SENT_FOR = 112 };

// Of each flow 32 bits of its hash, then when either side last sent something.
struct sent_line {
	__u64 flow[SENT_FLOWS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SENT_LINES);
	__type(key, __u32);
	__type(value, struct sent_line);
} sent SEC(".maps");

inline_ void flow_words(struct flow_words *f, const struct addr *remote, const struct addr *local, __u16 rport, __u16 lport, __u8 proto)
{
	f->w[0] = remote->d[0];
	f->w[1] = remote->d[1];
	f->w[2] = local->d[0];
	f->w[3] = local->d[1];
	f->w[4] = (__u64)proto << 32 | (__u32)rport << 16 | lport;
}

inline_ struct sent_line *sent_line(__u64 hash)
{
	__u32 i = hash % SENT_LINES;

	return bpf_map_lookup_elem(&sent, &i);
}

// The keys of config.hash, kept for the next run: hits and flows are found by them.
struct seed {
	__u64 hash[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seed);
} seeds SEC(".maps");
