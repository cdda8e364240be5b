package app

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// BenchmarkStrangers is a flood of forged SYNs to closed ports, 50,000 a second of a
// million names: what it costs to look at one when no table has it at hand.
func BenchmarkStrangers(b *testing.B) {
	f, err := newFullDetect("")
	if err != nil {
		b.Fatal(err)
	}
	home := netip.MustParseAddr("192.0.2.1")
	s := newScans(f.engine(func(a netip.Addr) bool { return a == home }))
	now, n := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(), uint32(0)
	stranger := func() {
		now += int64(time.Second) / 50_000
		n++
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 100<<24|n*0x9e3779b1>>12)
		sport, dport := uint16(n), 2100+uint16(n%1000)
		s.contact = detect.Contact{
			Time: now, Src: netip.AddrFrom4(a), Dst: home, SrcPort: sport, DstPort: dport,
			Proto: decode.ProtoTCP, Kind: detect.KindSYN, Outcome: detect.Refused,
			Head: detect.Header{Dst: home, SrcPort: sport, DstPort: dport, Proto: decode.ProtoTCP, Flags: decode.SYN, Window: 1024, Seq: 1, TTL: 64},
		}
		s.look()
	}
	for range 1 << 20 { // until all tables are full
		stranger()
	}
	b.ReportAllocs()
	for b.Loop() {
		stranger()
	}
}
