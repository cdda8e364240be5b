package bpf_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

// onWire is a rig whose program runs in the driver of a veth end, with a scanner
// at the other.
type onWire struct {
	*rig
	scanner, host *pktgen.End
}

func newOnWire(t testing.TB, rules bpf.Rules) *onWire {
	t.Helper()
	r := newRig(t, bpf.SensorOptions{}, rules)
	n, err := pktgen.NewNet()
	r.must(err)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	there, err := n.NewNS()
	r.must(err)
	here, err := n.NewNS()
	r.must(err)
	scanner, host, err := n.Link(there, here,
		[]netip.Prefix{netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd09::2/64")},
		[]netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd09::1/64")})
	r.must(err)
	r.must(scanner.StaticNeighbours())
	r.must(there.Do(func() error { return polls(t, scanner) }))
	r.must(r.SetOwn([]netip.Addr{host.Addr4(), host.Addr6()}))
	r.must(here.Do(func() error { return r.Attach(int32(host.Index), false) }))
	return &onWire{rig: r, scanner: scanner, host: host}
}

// polls puts a program on the veth end of e that lets everything pass. Without one
// it does not poll, as a card does, for what XDP_TX sends: that would lie in its
// queue, even with receive offload on, until something else arrives.
func polls(t testing.TB, e *pktgen.End) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "BSD", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: e.Index, Flags: link.XDPDriverMode})
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return err
}

// told has the kinds of all events so far, added to by every call.
func (w *onWire) told(counts map[uint8]int) map[uint8]int {
	for _, e := range w.events() {
		counts[e.What]++
	}
	return counts
}

// A connection to a trap opens, though nobody is there; what is sent on it is
// answered with a reset.
func TestConnect(t *testing.T) {
	w := newOnWire(t, verifyArmed)
	for _, to := range []netip.Addr{w.host.Addr4(), w.host.Addr6()} {
		var conn net.Conn
		err := w.scanner.NS.Do(func() (err error) {
			conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, trap).String(), 3*time.Second)
			return err
		})
		if err != nil {
			t.Fatalf("connection to %v: %v", to, err)
		}
		defer conn.Close()
		counts := make(map[uint8]int)
		bpf.Eventually(t, "verified", func() bool { return w.told(counts)[bpf.WhatVerified] > 0 })
		if counts[bpf.WhatProbe] != 1 || counts[bpf.WhatVerified] != 1 || counts[bpf.WhatLiving] != 0 {
			t.Errorf("%v: told %v", to, counts)
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		conn.SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%v: after data: %v", to, err)
		}
		bpf.Eventually(t, "verified again", func() bool { return w.told(counts)[bpf.WhatVerified] == 2 })
	}
	if got := w.counted(); got.Challenged != 2 || got.Verified != 4 || got.Resets != 2 || got.BadAcks != 0 {
		t.Errorf("%+v", got)
	}
}

// A scanner that leaves connections half open resets them: that proves nothing.
func TestHalfOpenScan(t *testing.T) {
	nmap, err := exec.LookPath("nmap")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs nmap")
		}
		t.Skip("needs nmap")
	}
	w := newOnWire(t, verifyArmed)
	for _, to := range []netip.Addr{w.host.Addr4(), w.host.Addr6()} {
		args := []string{"-sS", "-Pn", "-n", "-p23", "--disable-arp-ping", to.String()}
		if to.Is6() {
			args = append(args, "-6")
		}
		var out []byte
		err := w.scanner.NS.Do(func() (err error) {
			out, err = exec.Command(nmap, args...).CombinedOutput()
			return err
		})
		if err != nil {
			t.Fatalf("nmap: %v: %s", err, out)
		}
		counts := make(map[uint8]int)
		bpf.Eventually(t, "living", func() bool { return w.told(counts)[bpf.WhatLiving] > 0 })
		if counts[bpf.WhatVerified] != 0 || counts[bpf.WhatLiving] != 1 {
			t.Errorf("%v: told %v", to, counts)
		}
	}
}

// Forged SYNs bring nobody into anything, and no more answers than the budget.
func TestForgedSYNs(t *testing.T) {
	w := newOnWire(t, verifyArmed)
	sender, err := w.scanner.Sender()
	w.must(err)
	defer sender.Close()
	syns := func(dst netip.Addr) pktgen.Packet {
		p := tcp(netip.MustParseAddr("10.99.0.1"), trap, syn)
		p.Dst = dst
		if !dst.Is4() {
			p.Src = netip.MustParseAddr("fd99::1")
		}
		return p
	}
	for _, to := range []netip.Addr{w.host.Addr4(), w.host.Addr6()} {
		w.must(sender.SendPacket(syns(to)))
	}
	bpf.Eventually(t, "two answers", func() bool {
		tally, err := w.Tally()
		w.must(err)
		return tally.Challenged == 2
	})

	sniffer, err := pktgen.Sniff(t.Context(), w.scanner.NS, w.scanner.Name, 100_000)
	w.must(err)
	start := time.Now()
	sent, err := sender.Flood(t.Context(), syns(w.host.Addr4()), pktgen.FloodOpts{
		Count: 100_000, Rate: 100_000, SourcePrefix: netip.MustParsePrefix("100.64.0.0/10"), Sources: 1 << 22,
	})
	w.must(err)
	bpf.Eventually(t, "all of them judged", func() bool {
		tally, err := w.Tally()
		w.must(err)
		return tally.Challenged+tally.Unchallenged >= uint64(sent.Frames-sent.Dropped)
	})
	took := time.Since(start)
	answers, err := sniffer.Stop()
	w.must(err)
	n := 0
	for i := range answers {
		if answers[i].IsSYNACK() {
			n++
		}
	}
	t.Logf("%d SYNs in %v, %d answers", sent.Frames, sent.Took, n)
	if most := budget(10_000, 10_000, took); uint64(n) > most || n < 1000 {
		t.Errorf("%d answers in %v, at most %d", n, took, most)
	}
	counts := w.told(make(map[uint8]int))
	if counts[bpf.WhatVerified] != 0 || counts[bpf.WhatLiving] != 0 || counts[bpf.WhatProbe] == 0 {
		t.Errorf("told %v", counts)
	}
	if got := w.counted(); got.Verified != 0 || got.Living != 0 || got.BadAcks != 0 || got.Challenged < uint64(n) {
		t.Errorf("%+v", got)
	}
}
