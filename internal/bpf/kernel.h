//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// The little of the kernel's user interface that the programs need, so that
// they compile with clang alone and to the same bytes everywhere. Layouts and
// numbers are those of include/uapi/linux/bpf.h.
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define inline_ static inline __attribute__((always_inline))
// A function that the verifier looks at once, whoever calls it: it takes the
// context and pointers to what it may write, and says nothing but its result.
#define once_ __attribute__((noinline))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ntohs(x) __builtin_bswap16(x)
#define ntohl(x) __builtin_bswap32(x)
#else
#define ntohs(x) (x)
#define ntohl(x) (x)
#endif
#define htons(x) ntohs(x)
#define htonl(x) ntohl(x)

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

enum { AF_INET6 = 10 };
enum { IPPROTO_TCP = 6, IPPROTO_UDP = 17 };
enum { BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_SOCKMAP = 15, BPF_MAP_TYPE_RINGBUF = 27 };
enum { BPF_F_NO_PREALLOC = 1, BPF_F_MMAPABLE = 1 << 10 };
enum { BPF_NOEXIST = 1 };
enum { TRAP_MARK = 0x2073 }; // host.TrapMark
enum { BPF_RB_FORCE_WAKEUP = 2 };
enum { SK_PASS = 1 };
enum { BPF_SOCK_OPS_TCP_LISTEN_CB = 11 };

// Context of cgroup/post_bind*. Ports are in host byte order.
struct bpf_sock {
	__u32 bound_dev_if, family, type, protocol, mark, priority;
	__u32 src_ip4, src_ip6[4], src_port;
};

// Context of sockops, as far as needed. local_port is in host byte order.
struct bpf_sock_ops {
	__u32 op, args[4];
	__u32 family, remote_ip4, local_ip4, remote_ip6[4], local_ip6[4];
	__u32 remote_port, local_port;
};

// Context of sk_lookup. local_port is in host byte order.
struct bpf_sk_lookup {
	__u64 sk;
	__u32 family, protocol, remote_ip4, remote_ip6[4];
	__u16 remote_port, pad;
	__u32 local_ip4, local_ip6[4], local_port;
	__u32 ingress_ifindex;
};

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_sk_release)(void *sk) = (void *)86;
static __u64 (*bpf_get_netns_cookie)(void *ctx) = (void *)122;
static long (*bpf_sk_assign)(void *ctx, void *sk, __u64 flags) = (void *)124;
static long (*bpf_ringbuf_output)(void *ringbuf, void *data, __u64 size, __u64 flags) = (void *)130;

enum { BPF_MAP_TYPE_HASH = 1 };
enum { BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB = 5 };

// Context of sockops from end to end. skb_tcp_flags are the flags of the
// segment that made the call.
struct bpf_sock_ops_full {
	struct bpf_sock_ops ops;
	__u32 is_fullsock, tcp[23];
	__u64 bytes_received, bytes_acked;
	struct bpf_sock *sk;
	__u64 skb_data, skb_data_end;
	__u32 skb_len, skb_tcp_flags;
};

static __u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static __u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)160;
