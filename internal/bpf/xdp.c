//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// The packet's way below the stack: who is banned is dropped, who probes a trap
// where nobody is is told of and, where the configuration says so, banned with
// this very packet. Everything else passes, told of where it begins something at a
// port that nobody has, and what most packets need for that is one look-up, or none.
#include "xdp_parse.h"
#include "xdp_sets.h"
#include "xdp_events.h"
#include "xdp_served.h"
#include "xdp_challenge.h"
#include "xdp_closed.h"

enum { TRAP = 16 }; // with an enum state: the packet is for a trap

// Kinds of TCP packet, as detect.Classify tells them.
enum kind { NO_PROBE, PROOF_OF_NOTHING, BANNABLE };

inline_ enum kind classify(const struct packet *p)
{
	__u16 f = p->flags & F_SIX;

	if (f & F_RST || (f & (F_SYN | F_ACK)) == (F_SYN | F_ACK))
		return NO_PROBE;
	if ((f & (F_SYN | F_FIN | F_ACK)) == F_SYN || f == F_FIN)
		return BANNABLE; // PSH and URG make no difference to Linux
	if (!f)
		return p->flags ? PROOF_OF_NOTHING : BANNABLE; // ECE or CWR alone is odd, not NULL
	if ((f & (F_FIN | F_PSH | F_URG)) == (F_FIN | F_PSH | F_URG) && !(f & F_ACK))
		return BANNABLE;
	if (f == (F_FIN | F_ACK) || f == F_ACK)
		return PROOF_OF_NOTHING; // may be the tail of an old connection
	return f & F_ACK ? NO_PROBE : PROOF_OF_NOTHING;
}

// soft says whether a soft ban lets p pass: connections that exist, answers, and
// errors about them do.
inline_ int soft_passes(struct xdp_md *ctx, const struct packet *p, enum state parsed, __u8 protos)
{
	switch (p->proto) {
	case IPPROTO_TCP:
		if (!(protos & BAN_TCP))
			return 1;
		break;
	case IPPROTO_UDP:
		if (!(protos & BAN_UDP))
			return 1;
		break;
	case 0: // of IPv6: not known
		if (parsed == PARTLY)
			break;
		// fall through
	default:
		if (!(protos & BAN_OTHER))
			return 1;
	}
	if (parsed == OPAQUE || p->later)
		return 1; // without its first fragment a datagram is nothing
	if (parsed == PARTLY) // ports are all that is known, if they are
		return config.flags & NFTABLES || ((p->proto == IPPROTO_UDP || p->proto == IPPROTO_TCP) && belongs(ctx, p));
	switch (p->proto) {
	case IPPROTO_TCP:
		return !bare_syn(p) && belongs(ctx, p);
	case IPPROTO_UDP:
		return belongs(ctx, p);
	case IPPROTO_ICMP: // echo, timestamp, information and mask requests
		return p->ip & IS_V6 || !(p->type == 8 || p->type == 13 || p->type == 15 || p->type == 17);
	case IPPROTO_ICMPV6:
		return !(p->ip & IS_V6) || p->type != 128;
	case IPPROTO_SCTP:
		return p->type != 1; // INIT
	}
	return 1;
}

// limited_passes: what a socket takes, and whatever cannot be known here.
inline_ int limited_passes(struct xdp_md *ctx, struct packet *p, enum state parsed)
{
	if (parsed != WHOLE || (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP))
		return 1;
	return use_of(ctx, p, bare_syn(p)) != FREE;
}

// trapped judges a packet for a trap port. s is what keeps its source out, which
// has let it pass: nothing, a limited ban or a pardon. What costs least is asked
// first, for in advanced mode the packets of every service come here.
once_ int trapped(struct xdp_md *ctx, struct packet *p, struct standing *s, __u64 now)
{
	int tcp, syn, peer, spared, verdict;
	enum kind kind;
	enum use use;
	__u8 armed, made;

	if (!p || !s)
		return XDP_PASS;
	tcp = p->proto == IPPROTO_TCP;
	syn = tcp && bare_syn(p);
	kind = tcp ? classify(p) : BANNABLE;
	armed = tcp ? config.armed_tcp : config.armed_udp;
	if (s->strength == PARDON && (verdict = answered(ctx, p, s, now)) >= 0)
		return verdict;
	if (kind == NO_PROBE || (!syn && ephemeral(p->dport))) {
		count(C_NOISE);
		return XDP_PASS;
	}
	use = use_of(ctx, p, syn);
	switch (use) {
	case SERVED:
		if (config.flags & TRAP_SERVED && (!tcp || syn))
			break;
		count(C_SERVED);
		return XDP_PASS;
	case ANSWER:
	case TRANSLATED:
		count(C_REPLIES);
		return XDP_PASS;
	default:
		break;
	}
	if (p->marks & (BAD_LENGTH | BAD_CHECKSUM | SHORT_PAYLOAD) || bad_header(ctx, p) || bad_segment(ctx, p)) {
		count(C_BAD);
		return XDP_PASS;
	}
	if (!is_own(p)) { // somebody else's, on the way through
		count(C_NOT_OURS);
		return XDP_PASS;
	}
	if (use == UNKNOWN) {
		if (config.flags & SENSE)
			tell(ctx, p, QUESTION, PARDON, 0);
		return XDP_PASS;
	}
	count(C_SIGHTED);
	peer = is_peer(p);
	spared = is_spared(p);
	if (spared || !armed || kind != BANNABLE || s->decided) {
		if (config.flags & SENSE)
			tell(ctx, p, PROBE, PARDON, peer);
		return !spared ? challenge(ctx, p, s, now, XDP_PASS) : XDP_PASS;
	}
	made = peer || config.flags & LIMITED_ONLY ? LIMITED : SOFT;
	count(C_HITS);
	tell(ctx, p, PROBE, made, peer);
	verdict = challenge(ctx, p, s, now, XDP_DROP); // the frame is another now
	if (!provisional(&p->src, now, made, made == LIMITED ? BAN_ALL : armed, verdict == XDP_TX ? CHALLENGED : 0))
		count(C_HITS_FULL);
	return verdict;
}

// worth_a_look: of what only user space can read, what may be for a trap: as the
// filter of AF_PACKET has it.
once_ int worth_a_look(const struct packet *p)
{
	if (!p || !(config.flags & SENSE))
		return 0;
	if (p->ip & IS_V6)
		return 1;
	if (!p->later)
		return is_trap(p) || (config.flags & SCANS && p->proto == IPPROTO_TCP);
	return p->later <= 7 && p->proto == IPPROTO_TCP; // its header may go on there
}

// is_mapped: ::ffff:a.b.c.d, which is how IPv4 is written here.
inline_ int is_mapped(const struct addr *a) { return !a->d[0] && a->w[2] == htonl(0xffff); }

// disguised judges what Linux would take in spite of its tags.
inline_ int disguised(void)
{
	count(C_BAD);
	return config.bans || config.armed_tcp || config.armed_udp ? XDP_DROP : XDP_PASS;
}

// mapped tells of an IPv6 packet from or to such an address: Linux takes one from
// there, which to our maps would be from a.b.c.d.
once_ int mapped(struct xdp_md *ctx, const struct packet *p, enum state parsed)
{
	int trap;

	if (!p)
		return XDP_PASS;
	if (parsed == WHOLE)
		trap = (config.flags & SENSE && is_trap(p)) || (config.flags & SCANS && begins(p));
	else
		trap = parsed == PARTLY && worth_a_look(p);
	if (!is_mapped(&p->dst) && trap && is_own(p))
		tell_raw(ctx, p);
	return XDP_PASS;
}

inline_ int drop(struct standing *s, __u32 counter)
{
	s->dropped = 1;
	count_here(counter);
	return XDP_DROP;
}

// kept_out judges a packet of a source that s keeps out: -1 if it may go on.
once_ int kept_out(struct xdp_md *ctx, struct packet *p, struct standing *s, __u64 now, int what)
{
	enum state parsed = what & ~TRAP;
	int trap = what & TRAP, verdict;

	if (!p || !s)
		return -1;
	if (s->strength == FULL) {
		drop(s, C_DROPPED_FULL);
		// Traps go on looking open, or it would show which packet was too much.
		return trap && config.flags & VERIFY && is_own(p) ? challenge(ctx, p, s, now, XDP_DROP) : XDP_DROP;
	}
	if (!is_own(p))
		return XDP_PASS;
	// Whoever is kept out goes on being challenged, or nobody would ever be
	// proved to be who he says.
	if (trap && (verdict = answered(ctx, p, s, now)) >= 0)
		return verdict;
	if (s->strength == SOFT ? soft_passes(ctx, p, parsed, s->protos) : limited_passes(ctx, p, parsed))
		return -1;
	drop(s, s->strength == SOFT ? C_DROPPED_SOFT : C_DROPPED_LIMITED);
	return trap ? challenge(ctx, p, s, now, XDP_DROP) : XDP_DROP;
}

// ordinary reports whether a packet is what most are: part of a connection, for no trap,
// from nobody who is kept out. judge would let it pass after it has read all of it. The
// stack is why neither is inlined: before Linux 6.9 there are 512 bytes for all calls.
once_ int ordinary(struct xdp_md *ctx, __u64 now)
{
	__u8 *frame = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *ip = frame + 14, *tcp;
	struct standing s = {};
	struct account in = {};
	struct addr src = {};
	__u16 type;

	if (ip + 40 > end)
		return 0;
	type = be16(frame + 12);
	if (type == ETH_IPV4) {
		if (ip[0] != 0x45 || ip[9] != IPPROTO_TCP || be16(ip + 6) & 0x3fff)
			return 0;
		tcp = ip + 20;
		src.w[2] = htonl(0xffff);
		__builtin_memcpy(&src.w[3], ip + 12, 4);
	} else if (type == ETH_IPV6) {
		if (ip + 60 > end || ip[0] >> 4 != 6 || ip[6] != IPPROTO_TCP)
			return 0;
		tcp = ip + 40;
		__builtin_memcpy(&src, ip + 8, 16);
	} else {
		return 0;
	}
	if (!(tcp[13] & (F_ACK | F_RST)) || is_trap_port(IPPROTO_TCP, be16(tcp + 2)))
		return 0;
	if (!config.bans && hits_until <= now)
		return 1;
	find_standing(&src, type == ETH_IPV6, now, &s, &in);
	return s.strength == PARDON;
}

once_ int judge(struct xdp_md *ctx, __u64 now)
{
	struct packet p = {};
	struct standing s = {};
	struct account in = {};
	enum state parsed = parse(ctx, &p);
	int trap, verdict;

	if (parsed == NOT_IP)
		return XDP_PASS;
	if (parsed == DISGUISED)
		return disguised();
	if (p.ip & IS_V6 && (is_mapped(&p.src) || is_mapped(&p.dst)))
		return mapped(ctx, &p, parsed);
	find_standing(&p.src, p.ip & IS_V6, now, &s, &in);
	trap = parsed == WHOLE ? is_trap(&p) : parsed == PARTLY && worth_a_look(&p);
	if (s.strength != PARDON && !exempt(&p)) {
		// What there is most of in a flood is dropped here and now.
		verdict = s.strength == FULL && !trap ? drop(&s, C_DROPPED_FULL)
						      : kept_out(ctx, &p, &s, now, trap ? parsed | TRAP : parsed);
		if (verdict >= 0) {
			book(&s, &in);
			return verdict;
		}
	}
	if (!trap) {
		if (config.flags & SCANS && parsed == WHOLE && begins(&p))
			closed(ctx, &p, now);
		return XDP_PASS;
	}
	if (parsed == PARTLY) {
		if (is_own(&p))
			tell_raw(ctx, &p);
		return XDP_PASS;
	}
	verdict = trapped(ctx, &p, &s, now);
	book(&s, &in);
	return verdict;
}

SEC("xdp.frags")
int sense(struct xdp_md *ctx)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	return ordinary(ctx, now) ? XDP_PASS : judge(ctx, now);
}

// The kernel gives connection tracking to programs under its own licence only.
char terms[] SEC("license") = "Dual BSD/GPL";
