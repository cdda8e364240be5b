//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// Numbers of packets, and how they are read.
#pragma once
#include "kernel.h"

enum { ETH_IPV4 = 0x0800, ETH_VLAN = 0x8100, ETH_IPV6 = 0x86dd, ETH_QINQ = 0x88a8, ETH_QINQ1 = 0x9100 };
enum { IPPROTO_ICMP = 1, IPPROTO_ICMPV6 = 58, IPPROTO_SCTP = 132 };

// IPv6 extension headers (IANA).
enum { HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, ESP = 50, AH = 51, DEST_OPTS = 60, MOBILITY = 135, HIP = 139, SHIM6 = 140 };

enum { F_FIN = 1, F_SYN = 2, F_RST = 4, F_PSH = 8, F_ACK = 16, F_URG = 32, F_SIX = 63 };

// An address; IPv4 as ::ffff:a.b.c.d. Network byte order.
struct addr {
	union {
		__u8 b[16];
		__u32 w[4];
		__u64 d[2];
	};
};

inline_ __u16 be16(const __u8 *b) { return (__u16)b[0] << 8 | b[1]; }
inline_ __u32 be32(const __u8 *b) { return (__u32)b[0] << 24 | (__u32)b[1] << 16 | (__u32)b[2] << 8 | b[3]; }
