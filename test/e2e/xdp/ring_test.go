package xdp_test

import (
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// With CAPTURE="afpacket" the program bans and counts, and AF_PACKET, behind it,
// never sees what it drops: the daemon has it from the program, and itemises a scan
// once.
func TestBansBelowAFPacket(t *testing.T) {
	const probes, gap = 3000, 5 * time.Microsecond
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(with(alone, "CAPTURE", "afpacket"))
	if how := d.how(s.Host.Name); how.How != "AF_PACKET, XDP drops" || onLink(t, s.Host) == "" {
		t.Fatalf("watching %+v, program %q", how, onLink(t, s.Host))
	}
	names := []string{"kernel_trap_hits_total", "kernel_dropped_soft_total", "dropped_by_ban_total"}
	for i, src := range []netip.Addr{nth(clients, 1), nth(clients6, 1), nth(clients, 2), nth(clients6, 0x201)} {
		before := d.counters(names...)
		packets := []pktgen.Packet{s.tcp(src, 20000, trap, pktgen.SYN)}
		for k := range probes {
			packets = append(packets, s.tcp(src, uint16(20001+k), 443, pktgen.SYN))
		}
		sn := s.listening()
		_, err := s.send.Send(t.Context(), s.frames(packets...), float64(time.Second/gap))
		check(t, err)
		got := s.answers(sn)
		if got[src] > 0 || got[nth(ignored, 199)] == 0 {
			t.Errorf("%v: %d of %d probes answered", src, got[src], probes)
		}
		d.waitBan(src)
		s.seen(d)
		if lines := d.from(src); len(lines) != 1 {
			t.Errorf("%v: scan lines %q", src, lines)
		}
		after := d.counters(names...)
		for name, want := range map[string]uint64{"kernel_trap_hits_total": 1, "kernel_dropped_soft_total": probes} {
			if n := after[name] - before[name]; n != want {
				t.Errorf("%v: %s grew by %d, not %d (run %d)", src, name, n, want, i)
			}
		}
		// What is dropped in the moment in which the daemon confirms the ban is
		// counted in all, but not with the ban.
		if b, _ := d.ban(src); b.Dropped == nil || *b.Dropped > probes+1 || *b.Dropped < probes/2 {
			t.Errorf("%v: its ban has dropped %s packets", src, dropped(b))
		}
	}

	// What does not ban passes the program and is AF_PACKET's.
	ack := nth(nobody, 9)
	s.forge(s.tcp(ack, 40000, trap, pktgen.ACK))
	lab.Wait(t, soon, "the line of an ACK", func() bool { return len(d.from(ack)) > 0 })
	s.seen(d)
	if lines := d.from(ack); len(lines) != 1 {
		t.Errorf("scan lines %q", lines)
	}
}
