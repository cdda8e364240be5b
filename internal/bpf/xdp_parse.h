//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// The packet as package decode reads it: the two are tested against each other
// on the same bytes.
#pragma once
#include "xdp_packet.h"

enum { MAX_OFFSET = 16384 }; // of a header, where the verifier wants a bound

// bytes_at gives n bytes of the frame from off on, NULL if there are not so many.
// Where its first piece ends before them, they are copied.
inline_ const __u8 *bytes_at(struct xdp_md *ctx, __u64 off, const __u32 n, __u8 *copy)
{
	__u8 *b = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	OPAQUE_TO_COMPILER(off);
	if (off > MAX_OFFSET)
		return NULL;
	b += off;
	OPAQUE_TO_COMPILER(b);
	if (b + n <= end)
		return b;
	return bpf_xdp_load_bytes(ctx, off, copy, n) ? NULL : copy;
}

// read_transport reads the fixed header; left is what the IP length leaves for it.
once_ int read_transport(struct xdp_md *ctx, struct packet *p, __u32 left)
{
	__u8 copy[20];
	const __u8 *b;
	__u32 n;

	if (!p)
		return OPAQUE;
	if (p->proto == IPPROTO_TCP) {
		if (left < 20 || !(b = bytes_at(ctx, p->transport, 20, copy)))
			return OPAQUE;
		p->sport = be16(b);
		p->dport = be16(b + 2);
		p->seq = be32(b + 4);
		p->ack = be32(b + 8);
		p->flags = be16(b + 12) & 0x1ff;
		p->window = be16(b + 14);
		p->urgent = be16(b + 18);
		n = (b[12] >> 4) * 4;
		if (n < 20 || n > left)
			p->marks |= BAD_LENGTH;
		if (n < 20)
			n = 20;
		p->options_len = n - 20;
		p->payload = left > n ? left - n : 0;
	} else if (p->proto == IPPROTO_UDP) {
		if (left < 8 || !(b = bytes_at(ctx, p->transport, 8, copy)))
			return OPAQUE;
		p->sport = be16(b);
		p->dport = be16(b + 2);
		p->payload = left - 8;
		n = be16(b + 4);
		if (!n && p->ip & IS_V6)
			n = left; // as Linux takes a jumbogram's
		if (n < 8 || n > left)
			p->marks |= BAD_LENGTH;
		else if (p->ip & IS_V6 && !b[6] && !b[7])
			p->marks |= BAD_CHECKSUM; // not optional there: RFC 8200 section 8.1
	} else if (p->proto == IPPROTO_SCTP) {
		if (left < 12 || !(b = bytes_at(ctx, p->transport, 12, copy)))
			return OPAQUE;
		p->sport = be16(b);
		p->dport = be16(b + 2);
		p->payload = left - 12;
		if (left > 12 && (b = bytes_at(ctx, p->transport, 13, copy)))
			p->type = b[12];
	} else if (is_icmp(p)) {
		if (left < 8 || !(b = bytes_at(ctx, p->transport, 8, copy)))
			return OPAQUE;
		p->type = b[0];
		p->code = b[1];
		p->payload = left - 8;
	} else {
		p->payload = left;
	}
	return WHOLE;
}

// read_ports reads what a first fragment has of TCP or UDP in any case: it is cut
// at multiples of 8.
inline_ void read_ports(struct xdp_md *ctx, struct packet *p)
{
	__u8 ports[4];

	if (bpf_xdp_load_bytes(ctx, p->transport, ports, 4))
		return;
	p->sport = be16(ports);
	p->dport = be16(ports + 2);
}

// Where in the chain of IPv6 extension headers we are: at the header next, with
// left bytes from it on by the IP length.
struct chain {
	__u32 next, left;
	__u32 passed; // headers
};

enum { AT_HEADER = WHOLE + 1 }; // and any enum state: step is at the end

// step passes a header of the chain, and says what has become of the packet when
// there is none to pass. What fragments hold is user space's to find out.
once_ int step(struct xdp_md *ctx, struct packet *p, struct chain *c)
{
	__u8 b[8] = {};
	__u32 size;

	if (!p || !c)
		return OPAQUE;
	switch (c->next) {
	case HOP_BY_HOP:
		if (c->passed)
			return OPAQUE; // RFC 8200 section 4.1
		break;
	case ROUTING:
	case DEST_OPTS:
	case MOBILITY:
	case HIP:
	case SHIM6:
	case AH:
	case FRAGMENT:
		break;
	case ESP:
		return OPAQUE;
	default:
		p->proto = c->next;
		return read_transport(ctx, p, c->left);
	}
	if (c->passed++ == MAX_EXT)
		return PARTLY;
	if (c->left < 8 || bpf_xdp_load_bytes(ctx, p->transport, b, 8))
		return OPAQUE;
	p->marks |= EXT_HEADERS;
	if (c->next == FRAGMENT) {
		// Behind further headers the protocol stays unknown: 0.
		if (b[0] == IPPROTO_TCP || b[0] == IPPROTO_UDP || b[0] == IPPROTO_ICMPV6 || b[0] == IPPROTO_SCTP)
			p->proto = b[0];
		p->later = be16(b + 2) & 0xfff8 ? 255 : 0;
		p->transport += 8;
		if (!p->later)
			read_ports(ctx, p);
		return PARTLY;
	}
	size = c->next == AH ? ((__u32)b[1] + 2) * 4 : ((__u32)b[1] + 1) * 8;
	if (size > c->left)
		return OPAQUE;
	c->next = b[0];
	c->left -= size;
	p->transport += size;
	return AT_HEADER;
}

// read_chain walks the extension headers from next on. left is what the IP
// length leaves.
inline_ int read_chain(struct xdp_md *ctx, struct packet *p, __u32 next, __u32 left)
{
	struct chain c = {.next = next, .left = left};
	int state = AT_HEADER;

	for (int i = 0; i <= MAX_EXT && state == AT_HEADER; i++)
		state = step(ctx, p, &c);
	return state;
}

// have is how many bytes of the frame begin with the IP header.
inline_ __u32 have(struct xdp_md *ctx, const struct packet *p) { return bpf_xdp_get_buff_len(ctx) - p->network; }

// lacks reports whether the frame ends less than n bytes behind the beginning of
// the IP header. Its first piece is all of it, as a rule.
inline_ int lacks(struct xdp_md *ctx, const struct packet *p, __u32 n)
{
	__s64 first = (void *)(long)ctx->data_end - (void *)(long)ctx->data;

	return first < (__s64)n + p->network && have(ctx, p) < n;
}

once_ int read_ipv4(struct xdp_md *ctx, struct packet *p)
{
	__u32 header, total, at;
	__u8 copy[20];
	const __u8 *b;

	if (!p || !(b = bytes_at(ctx, p->network, 20, copy)) || b[0] >> 4 != 4)
		return NOT_IP;
	p->src.w[2] = p->dst.w[2] = htonl(0xffff);
	__builtin_memcpy(&p->src.w[3], b + 12, 4);
	__builtin_memcpy(&p->dst.w[3], b + 16, 4);
	header = (b[0] & 0xf) * 4;
	total = be16(b + 2);
	if (!total)
		total = have(ctx, p); // as before segmentation
	if (header < 20 || total < header)
		return OPAQUE;
	at = be16(b + 6);
	p->ipid = be16(b + 4);
	p->ttl = b[8];
	p->proto = b[9];
	if (at & 0x4000)
		p->ip |= HAS_DF;
	if (header > 20)
		p->ip |= HAS_OPTIONS;
	if (lacks(ctx, p, total))
		p->marks |= SHORT_PAYLOAD;
	p->transport = p->network + header;
	if (!(at & 0x3fff))
		return read_transport(ctx, p, total - header);
	at &= 0x1fff;
	p->later = at < 255 ? at : 255;
	if (!at)
		read_ports(ctx, p);
	return PARTLY;
}

once_ int read_ipv6(struct xdp_md *ctx, struct packet *p)
{
	__u32 total, next;
	__u8 copy[40];
	const __u8 *b;

	if (!p || !(b = bytes_at(ctx, p->network, 40, copy)) || b[0] >> 4 != 6)
		return NOT_IP;
	p->ip |= IS_V6;
	p->ttl = b[7];
	__builtin_memcpy(&p->src, b + 8, 16);
	__builtin_memcpy(&p->dst, b + 24, 16);
	total = be16(b + 4);
	next = b[6];
	if (!total && next == HOP_BY_HOP)
		total = have(ctx, p) - 40; // a jumbogram, RFC 2675
	if (lacks(ctx, p, total + 40))
		p->marks |= SHORT_PAYLOAD;
	p->transport = p->network + 40;
	if (next == IPPROTO_TCP || next == IPPROTO_UDP) {
		p->proto = next;
		return read_transport(ctx, p, total);
	}
	return read_chain(ctx, p, next, total);
}

once_ int parse(struct xdp_md *ctx, struct packet *p)
{
	__u32 type, off = 14;
	__u8 copy[4];
	const __u8 *b;

	if (!p || !(b = bytes_at(ctx, 12, 2, copy)))
		return NOT_IP;
	type = be16(b);
	for (int i = 0; type == ETH_VLAN || type == ETH_QINQ || type == ETH_QINQ1; i++) {
		if (!(b = bytes_at(ctx, off, 4, copy)))
			return NOT_IP;
		// A tag for priority only (IEEE 802.1Q) is taken off, however many there are.
		if (i == MAX_TAGS)
			return p->vlan[0] && p->vlan[1] && be16(b) & 0xfff ? NOT_IP : DISGUISED;
		p->vlan[i] = be16(b) & 0xfff;
		p->vlans++;
		type = be16(b + 2);
		off += 4;
	}
	p->network = off;
	if (type == ETH_IPV4)
		return read_ipv4(ctx, p);
	if (type == ETH_IPV6)
		return read_ipv6(ctx, p);
	return NOT_IP;
}
