package nft

import (
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"portsentry/internal/host"
)

// Matches and statements as nft itself would compile them, so that `nft list`
// can print them back. Every match works in register 1.
type match = []expr.Any

// TCP flags as in byte 13 of the header (RFC 9293 section 3.1).
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
	urg
	sixFlags = fin | syn | rst | psh | ack | urg // the classic ones: ECN set-up does not matter
)

func metaIs(key expr.MetaKey, value ...byte) match {
	return match{
		&expr.Meta{Key: key, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: value},
	}
}

// inLoopback: interface index 1 is lo in every network namespace.
func inLoopback() match { return metaIs(expr.MetaKeyIIF, loopback...) }

var loopback = binaryutil.NativeEndian.PutUint32(1)

func protocol(p byte) match { return metaIs(expr.MetaKeyL4PROTO, p) }

func payload(base expr.PayloadBase, offset, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: unix.NFT_REG_1, Base: base, Offset: offset, Len: length}
}

func sourceV4() match {
	return append(metaIs(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV4), payload(expr.PayloadBaseNetworkHeader, 12, 4))
}

func sourceV6() match {
	return append(metaIs(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6), payload(expr.PayloadBaseNetworkHeader, 8, 16))
}

func sourceNet6() match {
	mask := make([]byte, 16)
	for i := range 8 {
		mask[i] = 0xff
	}
	return append(sourceV6(), &expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1,
		Len: 16, Mask: mask, Xor: make([]byte, 16)})
}

func lookup(s *nftables.Set) *expr.Lookup {
	return &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: s.Name, SetID: s.ID}
}

// in matches a source in the set.
func (f *family) in(s *nftables.Set) match {
	return append(f.source[:len(f.source):len(f.source)], lookup(s))
}

// notIn matches a source of this family that is not in the set.
func (f *family) notIn(s *nftables.Set) match {
	l := lookup(s)
	l.Invert = true
	return append(f.source[:len(f.source):len(f.source)], l)
}

// protocol completes the source in the registers to source . protocol.
func (f *family) protocol() match {
	return match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: f.protoReg}}
}

// add puts register 1 into a dynamic set for so long. A set that is full ends
// the rule.
func add(s *nftables.Set, length time.Duration) match {
	return match{&expr.Dynset{SrcRegKey: unix.NFT_REG_1, SetName: s.Name, SetID: s.ID,
		Operation: unix.NFT_DYNSET_OP_ADD, Timeout: length}}
}

func ctState(bits uint32) match {
	return match{
		&expr.Ct{Key: expr.CtKeySTATE, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
	}
}

func replyDirection() match {
	return match{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{expr.CtDirReply}},
	}
}

// tcpFlags matches flags & mask op value.
func tcpFlags(mask byte, op expr.CmpOp, value byte) match {
	return match{
		payload(expr.PayloadBaseTransportHeader, 13, 1),
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		&expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: []byte{value}},
	}
}

func noTCPFlags() match {
	return match{
		payload(expr.PayloadBaseTransportHeader, 13, 1),
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{0}},
	}
}

// destPort matches a TCP or UDP destination port in the set.
func destPort(s *nftables.Set) match {
	return match{payload(expr.PayloadBaseTransportHeader, 2, 2), lookup(s)}
}

// notForUs matches packets to other than a local unicast address.
func notForUs() match {
	return match{
		&expr.Fib{Register: unix.NFT_REG_1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// trapSocket matches packets for a trap socket of ours. It breaks on TIME_WAIT
// and on connections whose handshake is not done: then the packet is for some
// connection and the question does not arise.
func trapSocket() match {
	return match{
		&expr.Socket{Key: expr.SocketKeyMark, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint32(host.TrapMark)},
	}
}

// boundSocket matches packets for a socket with an address of its own: a connection,
// or a listener that is bound to one. It breaks on TIME_WAIT.
func boundSocket() match { return socketIsWildcard(0) }

// wildcardSocket matches packets for a socket that takes those to any address.
func wildcardSocket() match { return socketIsWildcard(1) }

func socketIsWildcard(value byte) match {
	return match{
		&expr.Socket{Key: expr.SocketKeyWildcard, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{value}},
	}
}

func counter(name string) match {
	return match{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name}}
}

func verdict(k expr.VerdictKind) match { return match{&expr.Verdict{Kind: k}} }

func jump(c *nftables.Chain) match {
	return match{&expr.Verdict{Kind: expr.VerdictJump, Chain: c.Name}}
}
