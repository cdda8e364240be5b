//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// What the XDP program and user space share. User space writes bans, spare, own,
// traps, peers and config; the program writes hits, counters, missed and the
// rings. Neither waits for the other. Times are CLOCK_MONOTONIC, nanoseconds.
#pragma once
#include "xdp_kernel.h"
#include "sent.h"

// How hard a source is kept out, in the order of judge.Strength.
enum strength { PARDON, LIMITED, SOFT, FULL };

// Protocols that a soft ban is about.
enum { BAN_TCP = 1, BAN_UDP = 2, BAN_OTHER = 4, BAN_ALL = 7 };

// What is known of a source besides.
enum { CHALLENGED = 1, ALIVE = 2 };

struct ban_key {
	struct addr addr;
	__u32 bits; // 128: the address; 64: its IPv6 network
	__u32 pad;
};

// A ban that user space has decided, or a pardon: that there is none, whatever a
// hit says. Only until, strength and protos mean something here; dropped and
// marks are the program's to write, what is left is kept for the next run.
struct ban {
	__u64 until;
	__u64 since; // unix nanoseconds
	__u64 dropped; // packets
	__u8 strength, protos, marks, evidence;
	__u16 port;
	__u8 proto, kind;
	__u32 times, pad;
};

// A ban that the program has made by itself; it ends soon.
struct hit {
	struct addr src;
	__u64 until;
	__u32 dropped;
	__u8 strength, protos, marks, pad;
};

enum { HIT_BUCKETS = 1 << 13, HITS = 4 };

struct bucket {
	struct bpf_spin_lock lock;
	__u32 pad;
	struct hit hit[HITS];
};

struct spare_key {
	__u32 bits;
	__u8 addr[16];
};

// A ban of a range. A look-up finds the narrowest alone, so it knows until when it and
// the wider ones it lies in keep somebody out: fully, and at least softly. ban is its
// own, as it is in bans.
struct net_ban {
	__u64 full, soft;
	__u32 bits, pad; // how narrow it is: 96 and more for IPv4
	struct ban ban;
};

// Sets of ports: TCP, UDP.
struct ports {
	__u64 word[1024];
};

// What an event tells.
enum what {
	PROBE = 1, // of a trap where nobody is: a sighting
	QUESTION,  // to a trap; whether somebody is there could not be seen from here
	RAW,       // fragments and the like: the frame itself follows
	VERIFIED,  // an ACK brought our number back: the source is not forged
	LIVING,    // a RST answered our challenge: the address is in use, no more
	COUNTED,   // a probe that found no room in the ring (see missed)
	NO_TRAP = 128, // with PROBE, QUESTION and COUNTED: to what is no trap
};

// Bits of event.ip.
enum { IS_V6 = 1, HAS_DF = 2, HAS_OPTIONS = 4, IS_PEER = 8, WORKER = 16 }; // from WORKER on: whose source it is

// Marks are those of decode.Marks.
enum { BAD_IP_CHECKSUM = 1, BAD_CHECKSUM = 2, BAD_LENGTH = 16, SHORT_PAYLOAD = 32, EXT_HEADERS = 64 };

// An event. Numbers in host byte order.
struct event {
	__u64 time;
	struct addr src, dst;
	__u32 ifindex, seq, ack, ipid;
	__u32 length; // of the frame, on the wire
	__u32 times;  // 1, or as many as were counted
	__u16 sport, dport, flags, window, urgent, payload;
	__u16 vlan[2];
	__u8 vlans, proto, ttl, ip, marks;
	__u8 what, made;  // made: the ban that this packet began, an enum strength
	__u8 options_len; // TCP options, bytes
	__u8 options[40]; // of other protocols: type and code of ICMP, type of the first chunk of SCTP
};

// RAW_BYTES is what AF_PACKET keeps of such a frame. Most fit in RAW_SHORT.
enum { RAW_BYTES = 2048, RAW_SHORT = 256 };

struct raw_event {
	struct event event;
	__u8 data[RAW_BYTES]; // or RAW_SHORT; event.length of them, if there are so many
};

enum counter {
	C_SIGHTED,         // probes of traps where nobody is
	C_SERVED,          // to a trap port that somebody serves
	C_REPLIES,         // answers to something of ours, or translated
	C_NOISE,           // late packets and backscatter
	C_BAD,             // no host would take it
	C_NOT_OURS,        // to no address of this host
	C_DROPPED_FULL, C_DROPPED_SOFT, C_DROPPED_LIMITED, // by bans
	C_HITS,            // probes dropped that began or met no ban
	C_HITS_FULL,       // of them: no room for a provisional ban
	C_EVENTS,          // handed to the rings
	C_COUNTED,         // no room in the ring: counted by source
	C_UNCOUNTED,       // of them: by no source, there were too many
	C_RAW_LOST,        // what else user space should have been told, likewise
	C_CHALLENGED,      // SYN-ACKs sent
	C_UNCHALLENGED,    // not sent: mostly as the budget was spent
	C_VERIFIED, C_BAD_ACKS, C_LIVING, C_RESETS,
	C_PAUSES,          // no challenge for a while, for too many bad ACKs
	C_CLOSED,          // what begins something where nobody is, and is no trap
	C_CLOSED_COUNTED,  // of them: more than their share of the ring: counted by source
	C_CLOSED_UNCOUNTED, // of those: by no source, there were too many
	COUNTERS,
};

// Bits of config.flags.
enum {
	LIMITED_ONLY = 1,  // BLOCK_EVIDENCE="verified"
	TRAP_SERVED = 2,   // a trap is a trap even where somebody is
	ELSEWHERE = 4,     // destination NAT and the like: who is there cannot be seen from here
	NFTABLES = 8,      // it keeps the banned out as well, so what cannot be judged here may pass
	OWN_TRAPS = 16,    // sockets with TRAP_MARK are traps
	SENSE = 32,        // tell of probes that pass, too
	VERIFY = 64,       // challenge
	VLANS = 128,       // a device of this host takes tagged frames: who is there cannot be seen from here
	SCANS = 256,       // tell of what begins something where nobody is, trap or not
};

// Bits of config.bans: which maps are not empty.
enum { BANNED_ADDRS = 1, BANNED_NETS = 2 };

// Written by user space, field by field.
struct settings {
	__u32 flags;
	__u32 workers;      // rings in use, at least 1
	__u32 bans;         // 0: nobody is banned; else BANNED_ADDRS, BANNED_NETS or both
	__u16 ephemeral_first, ephemeral_last;
	__u8 armed_tcp, armed_udp;   // a hit bans; the protocols that are dropped
	__u8 epoch;         // which map of missed is written
	__u8 key;           // which of keys new cookies are made with
	__u64 provisional;  // length of the program's own bans
	__u64 keys[2][2];   // SipHash keys of the cookies: the present one and the one before
	__u64 hash[2];      // and of the program's tables
};

volatile struct settings config;

// No hit lasts longer than this: while it lies in the past nobody looks for any.
volatile __u64 hits_until;

struct {
	__uint(type, MAP_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, struct ban_key);
	__type(value, struct ban);
} bans SEC(".maps");

// The ranges; there is room for twice as many as there may be, so that what replaces
// them can come before they go.
struct {
	__uint(type, MAP_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 13);
	__type(key, struct spare_key);
	__type(value, struct net_ban);
} nets SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, HIT_BUCKETS);
	__type(key, __u32);
	__type(value, struct bucket);
} hits SEC(".maps");

struct {
	__uint(type, MAP_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, struct spare_key);
	__type(value, __u32);
} spare SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 12);
	__type(key, struct addr);
	__type(value, __u32);
} own SEC(".maps");

// Who has opened a connection; shared with peers.c.
struct {
	__uint(type, MAP_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, struct addr);
	__type(value, __u64);
} peers SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct ports);
} traps SEC(".maps");

struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, enum counter);
	__type(value, __u64);
} counters SEC(".maps");

// Set by a worker before it sleeps; the next event wakes it.
struct sleeper {
	volatile __u32 asleep;
	__u32 pad[15]; // a cache line each
};

struct {
	__uint(type, MAP_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct sleeper);
} sleepers SEC(".maps");

struct ring {
	__uint(type, MAP_RINGBUF);
	__uint(max_entries, 1 << 20);
};

struct {
	__uint(type, MAP_ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

// Probes that found no room in the ring, by source. Of the two, one is written
// while user space empties the other.
struct missed {
	__uint(type, MAP_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 13);
	__type(key, struct addr);
	__type(value, struct event);
};
struct missed missed_even SEC(".maps");
struct missed missed_odd SEC(".maps");

// The same of what was for no trap, which must not take the place of what was.
struct missed closed_even SEC(".maps");
struct missed closed_odd SEC(".maps");

enum { SETTLED = 1 << 12, ASKED = 1 << 12 };

// Ports of which it is known for a moment that somebody is there: no flow of
// datagrams asks for a socket with each of them. See xdp_closed.h.
struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, SETTLED);
	__type(key, __u32);
	__type(value, __u64);
} settled SEC(".maps");

// Who has asked for what has no ports, a while ago or less: once is enough.
struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, ASKED);
	__type(key, __u32);
	__type(value, __u64);
} asked SEC(".maps");
