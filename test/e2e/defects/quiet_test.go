package defects_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// What an attacker can send without end writes no lines: packets that no host
// takes, and datagrams to a trap port that a service has.
func TestNoLinesForRubbish(t *testing.T) {
	s := newStage(t)
	s.serve("udp", 9)
	s.conf(map[string]string{"UDP_PORTS": "7,9", "TCP_PORTS": "1,11"})
	p := s.foreground("-v")
	before := s.output(p.Out, p.Err)
	send, err := s.lab.Scanner.Sender()
	check(t, err)
	defer send.Close()
	packet := func(change func(*pktgen.Packet)) [][]byte {
		x := pktgen.Packet{Src: source(1), Dst: host, Proto: pktgen.ProtoTCP, SrcPort: 40000, DstPort: 11, Flags: pktgen.SYN, Seq: 1}
		change(&x)
		frames, err := x.Frames(send.Link())
		check(t, err)
		return frames
	}
	v6 := func(x *pktgen.Packet) { x.Src, x.Dst = s.lab.Scanner.Addr6(), s.lab.Host.Addr6() }
	const ethernet = 14
	var odd [][]byte
	for range 100 {
		short := packet(func(*pktgen.Packet) {})
		short[0] = short[0][:ethernet+20+4]
		header := packet(func(*pktgen.Packet) {})
		header[0][ethernet] = 0x44
		offset := packet(func(*pktgen.Packet) {})
		offset[0][ethernet+20+12] = 1 << 4
		hop := packet(func(x *pktgen.Packet) { v6(x); x.ExtHeaders = []pktgen.ExtHeader{{Type: pktgen.DestOptions, Len: 8}} })
		hop[0][ethernet+40+1] = 255 // longer than the packet
		later := packet(func(x *pktgen.Packet) { x.FragmentSize, x.Payload = 8, make([]byte, 64) })
		odd = append(odd, slices.Concat(short, header, offset, hop, later[3:4],
			packet(func(x *pktgen.Packet) { x.BadChecksum = true }),
			packet(func(x *pktgen.Packet) { x.BadIPChecksum = true }),
			packet(func(x *pktgen.Packet) { x.Src = netip.IPv4Unspecified() }),
			packet(func(x *pktgen.Packet) { x.Proto, x.DstPort, x.Payload = pktgen.ProtoUDP, 9, []byte("?") }),
		)...)
	}
	_, err = send.Send(t.Context(), odd, 20_000)
	check(t, err)
	check(t, send.SendPacket(pktgen.Packet{Src: source(2), Dst: host, Proto: pktgen.ProtoTCP, SrcPort: 40000, DstPort: 11, Flags: pktgen.SYN}))
	var after []string
	lab.Wait(t, patience, "the packet behind them all", func() bool {
		after = s.output(p.Out, p.Err)
		return slices.ContainsFunc(after, func(l string) bool { return strings.HasPrefix(l, "Scan from: [10.77.8.2]") })
	})
	if got := len(after) - len(before); got != 1 {
		t.Errorf("%d lines, want the last one alone:\n%s", got, strings.Join(after, "\n"))
	}
}

// output are all lines of both.
func (s *stage) output(out, errs harness.Output) []string {
	s.t.Helper()
	return slices.Concat(s.lines(out), s.lines(errs))
}
