//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// Who has completed a TCP handshake with a port that is served here: known the
// moment it is done, and not to be forged.
#include "kernel.h"

enum { EEXIST = 17 };
enum { SYN = 2 };

// An address in network byte order; IPv4 as ::ffff:a.b.c.d.
struct peer {
	union {
		__u8 byte[16];
		__u32 word[4];
	};
};

// peers gives the time when a peer was entered, CLOCK_BOOTTIME in nanoseconds.
// Nobody is pushed out of it by those who come later: where it is full, user
// space has to make room.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct peer);
	__type(value, __u64);
} peers SEC(".maps");

// What user space is told of a new peer: who, and what he connected to, in host
// byte order.
struct opening {
	struct peer peer, local;
	__u32 port;
};

// opened tells user space of each new peer.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} opened SEC(".maps");

__u64 peers_full;   // connections that made nobody a peer for lack of room
__u64 peers_untold; // peers entered, but there was no room in opened

// netns_cookie is that of the network namespace we watch: the program runs for
// every namespace of the host.
volatile const __u64 netns_cookie;

static inline __attribute__((always_inline)) int loopback(const struct peer *p)
{
	if (p->word[0] | p->word[1])
		return 0;
	if (p->byte[10] == 0xff && p->byte[11] == 0xff)
		return p->byte[12] == 127; // 127.0.0.0/8
	return !p->word[2] && !p->byte[12] && !p->byte[13] && !p->byte[14] && p->byte[15] == 1; // ::1
}

// The reply is left alone: other programs on the way may have set it.
SEC("sockops")
int established(struct bpf_sock_ops_full *ctx)
{
	struct opening opening = {};
	struct peer peer = {};
	struct bpf_sock *sk;
	__u64 now;
	long err;

	if (ctx->ops.op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB || bpf_get_netns_cookie(ctx) != netns_cookie)
		return 1;
	// TCP Fast Open, RFC 7413: this call comes with the SYN already, and where
	// the server wants no cookie (section 5) anybody could have sent that.
	if (ctx->skb_tcp_flags & SYN)
		return 1;
	// It has the mark of its listener.
	sk = ctx->sk;
	if (!sk || sk->mark == TRAP_MARK)
		return 1;

	if (ctx->ops.family == AF_INET6) { // and IPv4 at a listener for both
		peer.word[0] = ctx->ops.remote_ip6[0];
		peer.word[1] = ctx->ops.remote_ip6[1];
		peer.word[2] = ctx->ops.remote_ip6[2];
		peer.word[3] = ctx->ops.remote_ip6[3];
		opening.local.word[0] = ctx->ops.local_ip6[0];
		opening.local.word[1] = ctx->ops.local_ip6[1];
		opening.local.word[2] = ctx->ops.local_ip6[2];
		opening.local.word[3] = ctx->ops.local_ip6[3];
	} else {
		peer.byte[10] = peer.byte[11] = 0xff;
		peer.word[3] = ctx->ops.remote_ip4;
		opening.local.byte[10] = opening.local.byte[11] = 0xff;
		opening.local.word[3] = ctx->ops.local_ip4;
	}
	opening.port = ctx->ops.local_port;
	if (loopback(&peer) || bpf_map_lookup_elem(&peers, &peer))
		return 1;
	now = bpf_ktime_get_boot_ns();
	err = bpf_map_update_elem(&peers, &peer, &now, BPF_NOEXIST);
	if (err == -EEXIST) // another CPU was faster
		return 1;
	if (err) {
		__sync_fetch_and_add(&peers_full, 1);
		return 1;
	}
	opening.peer = peer;
	if (bpf_ringbuf_output(&opened, &opening, sizeof(opening), 0))
		__sync_fetch_and_add(&peers_untold, 1);
	return 1;
}
