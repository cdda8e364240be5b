//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// Trap ports without a socket each: new connections and datagrams to them are
// steered to four sockets of ours, until a service wants the port.
#include "kernel.h"

enum { TCP, UDP, PROTOCOLS };

// A number for each port.
struct counts {
	volatile __u32 of[65536];
};

// uses counts how often a port was bound or listened on; only the kernel side
// writes it. traps holds, for a trap port, the number of uses after which user
// space found the port free, plus one; only user space writes it. A port is
// steered while the two agree. So the first use of a port takes it out at once,
// and what user space decides from an older list of sockets puts nothing back:
// neither side ever overwrites what the other one knows.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PROTOCOLS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct counts);
} uses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PROTOCOLS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct counts);
} traps SEC(".maps");

// netns_cookie is that of the network namespace we watch: the hooks below run
// for every namespace of the host.
volatile const __u64 netns_cookie;

// Our sockets: TCP over IPv4, over IPv6, UDP over IPv4, over IPv6.
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

// taken wakes user space when a port has left the traps. What it holds is of no
// interest; where it is full, somebody is being woken already.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} taken SEC(".maps");

static inline __attribute__((always_inline)) int steered(__u32 proto, __u32 port)
{
	struct counts *t = bpf_map_lookup_elem(&traps, &proto);
	struct counts *u = bpf_map_lookup_elem(&uses, &proto);

	return t && u && t->of[port] == u->of[port] + 1;
}

static inline __attribute__((always_inline)) void used(__u32 proto, __u32 port)
{
	struct counts *u = bpf_map_lookup_elem(&uses, &proto);
	int was = steered(proto, port);

	if (!u)
		return;
	__sync_fetch_and_add(&u->of[port], 1);
	if (was)
		bpf_ringbuf_output(&taken, &port, sizeof(port), BPF_RB_FORCE_WAKEUP);
}

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	__u32 port = ctx->local_port & 0xffff;
	__u32 proto = ctx->protocol == IPPROTO_UDP ? UDP : TCP; // there is no third
	__u32 key = proto * 2 + (ctx->family == AF_INET6);
	void *sk;

	if (!steered(proto, port))
		return SK_PASS;
	sk = bpf_map_lookup_elem(&sockets, &key);
	if (!sk)
		return SK_PASS;
	// Fails where another program has chosen a socket already: let it.
	bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return SK_PASS;
}

static inline __attribute__((always_inline)) int bound(struct bpf_sock *ctx)
{
	__u32 port = ctx->src_port & 0xffff;

	if (bpf_get_netns_cookie(ctx) != netns_cookie)
		return 1;
	if (ctx->protocol == IPPROTO_TCP)
		used(TCP, port);
	else if (ctx->protocol == IPPROTO_UDP)
		used(UDP, port);
	return 1;
}

SEC("cgroup/post_bind4")
int bound4(struct bpf_sock *ctx)
{
	return bound(ctx);
}

SEC("cgroup/post_bind6")
int bound6(struct bpf_sock *ctx)
{
	return bound(ctx);
}

// Listening without bind(2), or long after it. The reply is left alone: other
// programs on the way may have set it.
SEC("sockops")
int listening(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_TCP_LISTEN_CB && bpf_get_netns_cookie(ctx) == netns_cookie)
		used(TCP, ctx->local_port & 0xffff);
	return 1;
}
