package sqlite

import (
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/store"
)

// Addresses are kept as sixteen bytes, IPv4 as IPv4-mapped, so that a prefix is a range
// of them. No bytes: no address.

func addrBytes(a netip.Addr) []byte {
	if !a.IsValid() {
		return []byte{}
	}
	b := a.As16()
	return b[:]
}

func bytesAddr(b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if !ok || len(b) != 16 {
		return netip.Addr{}
	}
	return a.Unmap()
}

// prefixBits is how many bits of the sixteen bytes p fixes.
func prefixBits(p netip.Prefix) int {
	if p.Addr().Is4() {
		return p.Bits() + 96
	}
	return p.Bits()
}

func bitsPrefix(b []byte, n int) netip.Prefix {
	a := bytesAddr(b)
	if a.Is4() {
		n -= 96
	}
	return netip.PrefixFrom(a, n)
}

// bounds are the first and the last address of p, as they are kept.
func bounds(p netip.Prefix) (first, last []byte) {
	first = addrBytes(p.Masked().Addr())
	last = append([]byte(nil), first...)
	for i := prefixBits(p); i < 128; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	return first, last
}

// nanos is t as it is kept: unix nanoseconds, 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// packetSize is a packet as it is kept with a ban, in big-endian numbers: time 8,
// source 16, destination 16, ports 4, sequence numbers 8, interface 4, flags 2, window
// 2, identification 2, protocol, kind, TTL, and one byte of marks.
const packetSize = 66

const (
	markFragmented = 1 << iota
	markVerified
	markOptions // two bits: decode.Tri
)

func packetBytes(packets []store.Packet) []byte {
	out := make([]byte, 0, len(packets)*packetSize) // never nil, which would be NULL
	be := binary.BigEndian
	for i := range packets {
		p := &packets[i]
		src, dst := p.Src.As16(), p.Dst.As16()
		var marks byte
		if p.Fragmented {
			marks |= markFragmented
		}
		if p.Verified {
			marks |= markVerified
		}
		marks |= byte(p.IPOptions%4) * markOptions
		out = be.AppendUint64(out, uint64(p.Time))
		out = append(append(out, src[:]...), dst[:]...)
		out = be.AppendUint16(be.AppendUint16(out, p.SrcPort), p.DstPort)
		out = be.AppendUint32(be.AppendUint32(out, p.Seq), p.Ack)
		out = be.AppendUint32(out, uint32(p.IfIndex))
		out = be.AppendUint16(be.AppendUint16(be.AppendUint16(out, p.Flags), p.Window), p.IPID)
		out = append(out, p.Proto, byte(p.Kind), p.TTL, marks)
	}
	return out
}

func bytesPackets(b []byte) []store.Packet {
	var out []store.Packet
	be := binary.BigEndian
	for ; len(b) >= packetSize; b = b[packetSize:] {
		marks := b[65]
		out = append(out, store.Packet{
			Time: int64(be.Uint64(b)), Src: bytesAddr(b[8:24]), Dst: bytesAddr(b[24:40]),
			SrcPort: be.Uint16(b[40:]), DstPort: be.Uint16(b[42:]), Seq: be.Uint32(b[44:]), Ack: be.Uint32(b[48:]),
			IfIndex: int32(be.Uint32(b[52:])), Flags: be.Uint16(b[56:]), Window: be.Uint16(b[58:]), IPID: be.Uint16(b[60:]),
			Proto: b[62], Kind: detect.Kind(b[63]), TTL: b[64],
			Fragmented: marks&markFragmented != 0, Verified: marks&markVerified != 0,
			IPOptions: decode.Tri(marks / markOptions % 4 % 3),
		})
	}
	return out
}

// foundText is a scan as it is kept: JSON, "" for none.
func foundText(f *detect.Found) string {
	if f.Kind == detect.KindNone {
		return ""
	}
	b, err := json.Marshal(f)
	if err != nil { // a score that is no number
		return ""
	}
	return string(b)
}

func textFound(s string) (f detect.Found) {
	if s != "" && json.Unmarshal([]byte(s), &f) != nil {
		return detect.Found{}
	}
	return f
}
