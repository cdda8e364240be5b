package app

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/pktgen"
)

// A checksum that a card is to go on from is told from one that is wrong.
func TestHalfSummed(t *testing.T) {
	four, six := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8:a::9")
	for _, src := range []netip.Addr{four, six} {
		dst := here
		if src.Is6() {
			dst = netip.MustParseAddr("2001:db8::1")
		}
		for _, p := range []pktgen.Packet{
			{Src: src, Dst: dst, Proto: 6, SrcPort: 40000, DstPort: 1, Flags: pktgen.SYN},
			{Src: src, Dst: dst, Proto: 17, SrcPort: 40000, DstPort: 1, Payload: []byte("hello")},
		} {
			p.BadChecksum = true
			b, err := p.AppendTo(nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			var probe decode.Probe
			f := capture.Frame{Data: b, WireLen: len(b), Link: capture.LinkRaw}
			if st := new(decode.Decoder).Decode(&f, &probe); st != decode.Complete || probe.Marks&decode.BadChecksum == 0 {
				t.Fatalf("%v %+v", st, probe)
			}
			if halfSummed(b, &probe) {
				t.Errorf("%v, protocol %d: a wrong one is left to the card", src, p.Proto)
			}
			header, segment := b[12:20], b[20:]
			if src.Is6() {
				header, segment = b[8:40], b[40:]
			}
			at := 16
			if p.Proto == 17 {
				at = 6
			}
			binary.BigEndian.PutUint16(segment[at:], sum(header, uint32(p.Proto)+uint32(len(segment))))
			if !halfSummed(b, &probe) {
				t.Errorf("%v, protocol %d: one that is left to the card is wrong", src, p.Proto)
			}
			b[6] = 60 // IPv6: destination options come first
			if src.Is6() && !halfSummed(b, &probe) {
				t.Error("nobody looks behind extension headers")
			}
		}
	}
}
