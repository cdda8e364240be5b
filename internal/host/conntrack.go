package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ErrNoConntrack says that the kernel has no connection tracking, or no way to
// ask about it. Then there is no stateful NAT either.
var ErrNoConntrack = errors.New("the kernel has no connection tracking to ask (nf_conntrack_netlink)")

// linux/netfilter/nfnetlink_conntrack.h
const (
	ctGet        = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	ctTupleOrig  = 1
	ctTupleReply = 2
	ctStatus     = 3
	ctTupleIP    = 1
	ctTupleProto = 2
	ctIPv4Src    = 1
	ctIPv4Dst    = 2
	ctIPv6Src    = 3
	ctIPv6Dst    = 4
	ctProtoNum   = 1
	ctSrcPort    = 2
	ctDstPort    = 3
	ctAssured    = 1 << 2 // IPS_ASSURED

	nfgenSize = 4 // struct nfgenmsg {family u8, version u8, resource be16}
)

// Flow is one entry of connection tracking: the ends of its first packet, and
// those of an answer, which differ by more than their order under NAT.
type Flow struct {
	OrigSrc, OrigDst   netip.AddrPort
	ReplySrc, ReplyDst netip.AddrPort
	Assured            bool // answered and gone on; forged packets get there too
}

// Ours reports whether a packet from src that belongs to the flow goes against
// its first packet: a reply to what this host, or a guest behind it, sent. An
// entry that a probe itself has made is not ours.
func (f Flow) Ours(src netip.AddrPort) bool { return f.OrigSrc != src }

// Translated reports destination NAT: another one answers than was asked.
func (f Flow) Translated() bool { return f.ReplySrc != f.OrigDst }

// Conntrack asks the kernel for entries of connection tracking (default zone),
// per packet and without allocation. Asking takes CAP_NET_ADMIN. It is not safe
// for concurrent use: one per worker.
type Conntrack struct {
	conn *conn
	req  []byte
}

// NewConntrack opens the question to the kernel. Its error wraps ErrNoConntrack
// where there is nobody to ask. A namespace that tracks nothing just has no
// entries.
func NewConntrack() (*Conntrack, error) {
	c, err := dial(unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, ErrNoConntrack
	}
	if err != nil {
		return nil, fmt.Errorf("conntrack: %w", err)
	}
	t := &Conntrack{c, make([]byte, 0, 128)}
	nobody := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 9) // RFC 5737
	_, _, err = t.Find(unix.IPPROTO_TCP, nobody, nobody)
	if err == nil {
		return t, nil
	}
	// EINVAL is how nfnetlink says that it has no such part.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = ErrNoConntrack
	}
	return nil, errors.Join(err, c.close())
}

// Close frees the socket.
func (t *Conntrack) Close() error { return t.conn.close() }

// Find gives the entry to which a packet of a protocol with ports (TCP, UDP,
// SCTP) from src to dst belongs, in whichever direction.
func (t *Conntrack) Find(proto uint8, src, dst netip.AddrPort) (Flow, bool, error) {
	t.req = appendTupleRequest(t.req[:0], proto, src, dst)
	body, err := t.conn.exact(t.req)
	if errors.Is(err, unix.ENOENT) {
		return Flow{}, false, nil
	}
	if err != nil {
		return Flow{}, false, fmt.Errorf("conntrack: %w", err)
	}
	f, ok := parseFlow(body)
	return f, ok, nil
}

// appendTupleRequest writes IPCTNL_MSG_CT_GET for one tuple.
func appendTupleRequest(b []byte, proto uint8, src, dst netip.AddrPort) []byte {
	var header [unix.SizeofNlMsghdr + nfgenSize]byte
	native.PutUint16(header[4:], ctGet)
	native.PutUint16(header[6:], unix.NLM_F_REQUEST)
	family, ipLen, srcKind, dstKind := uint8(unix.AF_INET), 4, uint16(ctIPv4Src), uint16(ctIPv4Dst)
	if src.Addr().Is6() {
		family, ipLen, srcKind, dstKind = unix.AF_INET6, 16, ctIPv6Src, ctIPv6Dst
	}
	header[unix.SizeofNlMsghdr] = family
	b = append(b, header[:]...)

	const head, small = 4, 8 // an attribute's header; one with a value of up to 4 bytes
	ips, ports := head+2*(head+ipLen), head+3*small
	b = appendAttribute(b, ctTupleOrig|unix.NLA_F_NESTED, head+ips+ports)
	b = appendAttribute(b, ctTupleIP|unix.NLA_F_NESTED, ips)
	b = appendAddr(appendAttribute(b, srcKind, head+ipLen), src.Addr())
	b = appendAddr(appendAttribute(b, dstKind, head+ipLen), dst.Addr())
	b = appendAttribute(b, ctTupleProto|unix.NLA_F_NESTED, ports)
	b = append(appendAttribute(b, ctProtoNum, head+1), proto, 0, 0, 0)
	b = append(appendAttribute(b, ctSrcPort, head+2), byte(src.Port()>>8), byte(src.Port()), 0, 0)
	b = append(appendAttribute(b, ctDstPort, head+2), byte(dst.Port()>>8), byte(dst.Port()), 0, 0)
	native.PutUint32(b, uint32(len(b)))
	return b
}

func appendAttribute(b []byte, kind uint16, length int) []byte {
	return native.AppendUint16(native.AppendUint16(b, uint16(length)), kind)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		v := a.As4()
		return append(b, v[:]...)
	}
	v := a.As16()
	return append(b, v[:]...)
}

func parseFlow(b []byte) (f Flow, ok bool) {
	if len(b) < nfgenSize {
		return f, false
	}
	for k, v, rest, more := nextAttribute(b[nfgenSize:]); more; k, v, rest, more = nextAttribute(rest) {
		switch k {
		case ctTupleOrig:
			f.OrigSrc, f.OrigDst = parseTuple(v)
		case ctTupleReply:
			f.ReplySrc, f.ReplyDst = parseTuple(v)
		case ctStatus:
			f.Assured = len(v) >= 4 && binary.BigEndian.Uint32(v)&ctAssured != 0
		}
	}
	return f, f.OrigSrc.IsValid() && f.OrigDst.IsValid() && f.ReplySrc.IsValid() && f.ReplyDst.IsValid()
}

func parseTuple(b []byte) (src, dst netip.AddrPort) {
	var from, to netip.Addr
	var fromPort, toPort uint16
	for k, v, rest, ok := nextAttribute(b); ok; k, v, rest, ok = nextAttribute(rest) {
		for kind, value, next, more := nextAttribute(v); more; kind, value, next, more = nextAttribute(next) {
			switch {
			case k == ctTupleIP && (kind == ctIPv4Src || kind == ctIPv6Src):
				from, _ = netip.AddrFromSlice(value)
			case k == ctTupleIP && (kind == ctIPv4Dst || kind == ctIPv6Dst):
				to, _ = netip.AddrFromSlice(value)
			case k == ctTupleProto && kind == ctSrcPort && len(value) >= 2:
				fromPort = binary.BigEndian.Uint16(value)
			case k == ctTupleProto && kind == ctDstPort && len(value) >= 2:
				toPort = binary.BigEndian.Uint16(value)
			}
		}
	}
	return netip.AddrPortFrom(from, fromPort), netip.AddrPortFrom(to, toPort)
}
