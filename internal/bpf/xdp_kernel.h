//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// What an XDP program needs of the kernel besides kernel.h. Layouts and numbers
// are those of include/uapi/linux/bpf.h and net/netfilter/nf_conntrack_bpf.c.
#pragma once
#include "kernel.h"

typedef int __s32;
typedef long long __s64;

#define __array(name, val) typeof(val) *name[]

enum { XDP_DROP = 1, XDP_PASS, XDP_TX };

struct xdp_md {
	__u32 data, data_end, data_meta;
	__u32 ingress_ifindex, rx_queue_index, egress_ifindex;
};

enum {
	MAP_HASH = 1, MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_LPM_TRIE = 11,
	MAP_ARRAY_OF_MAPS = 12, MAP_RINGBUF = 27,
};
enum { RB_NO_WAKEUP = 1, RB_FORCE_WAKEUP = 2 };
enum { RB_AVAIL_DATA, RB_RING_SIZE }; // of bpf_ringbuf_query

#define CURRENT_NETNS (-1ULL) // BPF_F_CURRENT_NETNS

struct bpf_spin_lock {
	__u32 val;
};

// Everything in network byte order.
struct bpf_sock_tuple {
	union {
		struct {
			__u32 saddr, daddr;
			__u16 sport, dport;
		} ipv4;
		struct {
			__u32 saddr[4], daddr[4];
			__u16 sport, dport;
		} ipv6;
	};
};

// struct bpf_sock to its end; of a struct sock_common only some of it may be read.
struct found_sock {
	__u32 bound_dev_if, family, type, protocol, mark, priority;
	__u32 src_ip4, src_ip6[4], src_port;
	__u16 dst_port, pad;
	__u32 dst_ip4, dst_ip6[4], state;
	__s32 rx_queue_mapping;
};

// States of a socket (include/net/tcp_states.h). One of UDP is closed, or, once it
// is connected, established.
enum { TCP_CLOSE = 7, TCP_LISTEN = 10 };

struct bpf_ct_opts {
	__s32 netns_id, error;
	__u8 l4proto, dir, reserved[2];
};

enum { CT_DIR_REPLY = 1 };
enum { CT_SEEN_REPLY = 1 << 1, CT_DST_NAT = 1 << 5 }; // bits of nf_conn.status

struct nf_conn {
	unsigned long status;
} __attribute__((preserve_access_index));

// Not in every kernel, and only where connection tracking is: Linux 6.1.
extern struct nf_conn *bpf_xdp_ct_lookup(struct xdp_md *ctx, struct bpf_sock_tuple *tuple, __u32 tuple__sz,
	struct bpf_ct_opts *opts, __u32 opts__sz) __attribute__((section(".ksyms"), weak));
extern void bpf_ct_release(struct nf_conn *ct) __attribute__((section(".ksyms"), weak));

static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_csum_diff)(void *from, __u32 from_size, void *to, __u32 to_size, __u32 seed) = (void *)28;
static long (*bpf_xdp_adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;
static struct found_sock *(*bpf_sk_lookup_tcp)(void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns, __u64 flags) = (void *)84;
static struct found_sock *(*bpf_sk_lookup_udp)(void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns, __u64 flags) = (void *)85;
static void (*bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)93;
static void (*bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)94;
static struct found_sock *(*bpf_skc_lookup_tcp)(void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns, __u64 flags) = (void *)99;
static void *(*bpf_ringbuf_reserve)(void *ringbuf, __u64 size, __u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;
static void (*bpf_ringbuf_discard)(void *data, __u64 flags) = (void *)133;
static __u64 (*bpf_ringbuf_query)(void *ringbuf, __u64 flags) = (void *)134;
static __u64 (*bpf_xdp_get_buff_len)(struct xdp_md *ctx) = (void *)188;
static long (*bpf_xdp_load_bytes)(struct xdp_md *ctx, __u32 offset, void *buf, __u32 len) = (void *)189;
static long (*bpf_xdp_store_bytes)(struct xdp_md *ctx, __u32 offset, const void *buf, __u32 len) = (void *)190;

// OPAQUE_TO_COMPILER keeps clang from folding a bound into an earlier one, which
// the verifier would then miss.
#define OPAQUE_TO_COMPILER(x) asm volatile("" : "+r"(x))

// COMPILER_BARRIER keeps clang from moving stores past it, or leaving them out.
#define COMPILER_BARRIER() asm volatile("" ::: "memory")

