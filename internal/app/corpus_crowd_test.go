package app

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"portsentry/internal/detect"
	"portsentry/internal/detect/crowd"
	"portsentry/internal/detect/full"
	"portsentry/internal/pktgen"
)

// 5. nmap -D RND:9,ME with ME at each place: every probe in ten names within
// milliseconds, with a TTL drawn for each. The host refuses; of who asks for its one
// open port those that are alive reset the answer, which proves nothing. One campaign of
// ten, and who is the real one is known when he completes a connection (-sV), not before,
// and a customer who comes by has no part in it.
func TestCorpus05Decoys(t *testing.T) {
	t.Parallel()
	for me := range 10 {
		t.Run(fmt.Sprint("place ", me+1), func(t *testing.T) {
			w := newCorpus(t)
			customer := w.anybody()
			var names []netip.Addr
			for range 10 {
				names = append(names, w.anybody())
			}
			key := uint32(w.rng.Uint32() & 0xffff)
			for i := range uint16(60) {
				port := 400 + i
				probe := w.rawSYN(names[0], port)
				high := w.rng.Uint32() & 0xffff
				probe.Window, probe.Seq, probe.SrcPort = 1024, high<<16|high^key, 41000+i%3 // one run has one key
				for place, from := range names {
					probe.Src, probe.TTL = from, 37+uint8(w.rng.Uint32()%23)
					if port != 443 {
						w.refused(probe)
						continue
					}
					w.send(probe)
					w.send(reply(probe, pktgen.SYN|pktgen.ACK))
					if place == me || place%2 == 0 {
						reset := probe
						reset.Flags, reset.Seq, reset.TCPOptions = pktgen.RST, probe.Seq+1, nil
						w.send(reset)
					}
				}
				w.pass(20 * time.Millisecond)
				if i%10 == 0 {
					w.visit(customer, 443)
				}
			}
			w.pass(10 * time.Second)
			w.visit(customer, 443)
			g := w.group(crowd.Decoys)
			if g.Count != 10 || g.Real.IsValid() {
				t.Fatalf("a group of %d, the real one is %v", g.Count, g.Real)
			}
			for _, n := range names {
				if !slices.Contains(g.Members, n) {
					t.Errorf("%v is not in it", n)
				}
			}
			scans := 0
			for s := range w.engine.Scans() {
				scans++
				if s.Campaign != g.ID || s.Tool != "nmap" || s.Verified || !slices.Contains(names, s.Source) {
					t.Errorf("%+v", s)
				}
			}
			if scans != 10 {
				t.Errorf("%d scans in ten names", scans)
			}
			w.visit(names[me], 443)
			w.visit(customer, 443)
			if g = w.group(crowd.Decoys); g.Real != names[me] || g.Count != 10 {
				t.Errorf("the real one is %v, not %v, of %d", g.Real, names[me], g.Count)
			}
		})
	}
}

// A /24 shares out a sweep: each of 250 sources tries four ports, too few to be found
// alone, of a thousand. One campaign for all of them. In the same network live people who
// find whom they look for, and miss somebody once: before, between and after; they, and
// clients elsewhere, have no part in it.
func TestCorpusSharedSweep(t *testing.T) {
	w := newCorpus(t)
	member := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}) }
	const sweepers, people = 240, 10
	var innocent []netip.Addr
	for i := range people {
		innocent = append(innocent, member(sweepers+1+i), w.anybody())
	}
	for i, a := range innocent {
		if i < people {
			w.refused(w.stackSYN(a, uint16(5000+i))) // at first nobody is there
		}
		w.visit(a, 443)
		w.pass(10 * time.Second)
	}
	for i := range 4 * sweepers {
		w.refused(w.rawSYN(member(1+i%sweepers), uint16(6000+i*7)))
		w.pass(2 * time.Second)
		if i%48 == 0 {
			w.refused(w.stackSYN(innocent[i/48], uint16(5100+i)))
		}
	}
	scans := w.end()
	w.only() // nobody has done enough alone
	g := w.group(crowd.Network)
	for _, s := range scans {
		if s.Direction != detect.Distributed || s.Campaign != g.ID || s.Kind != detect.KindSYN || s.Verified ||
			s.Ports != 4 || s.Failed != 4 || s.Score <= 0 || s.Score >= float64(full.Threshold) || !slices.Contains(g.Members, s.Source) {
			t.Errorf("%+v", s)
		}
	}
	if len(scans) != sweepers {
		t.Errorf("%d of %d are reported", len(scans), sweepers)
	}
	if g.Count != sweepers || len(g.Members) != sweepers {
		t.Errorf("%d members, %d of them named, of %d", g.Count, len(g.Members), sweepers)
	}
	for _, a := range innocent {
		if slices.Contains(g.Members, a) {
			t.Errorf("%v belongs to it", a)
		}
	}
}

// 13. Somebody takes another address of his /64 for each probe: one source, one scan.
// Who lives in the /64 beside it misses somebody four times, which is no scan, and has
// nothing to do with that one; so has who lives there and only visits.
func TestCorpus13IPv6Rotation(t *testing.T) {
	w := newCorpus(t)
	own := netip.MustParsePrefix("2001:db8:7:1::/64")
	beside, guest := netip.MustParseAddr("2001:db8:7:2::5"), netip.MustParseAddr("2001:db8:7:3::5")
	w.visit(beside, 443)
	var scanner netip.Addr
	for i := range uint16(20) {
		b := own.Addr().As16()
		for j := range 8 {
			b[8+j] = byte(w.rng.Uint32())
		}
		from := netip.AddrFrom16(b)
		if i == 0 {
			scanner = from
		}
		w.refused(w.rawSYN(from, 1001+i))
		w.pass(time.Second)
		if i < 4 {
			w.refused(w.stackSYN(beside, 1001+i))
			w.visit(guest, 443)
		}
	}
	w.end()
	w.only(scanner.String() + " syn vertical")
	for s := range w.engine.Scans() {
		if s.Ports != 20 || s.Probes != 20 {
			t.Errorf("%d ports, %d probes of 20", s.Ports, s.Probes)
		}
	}
	for _, g := range w.groups {
		for _, m := range g.Members {
			if !own.Contains(m) {
				t.Errorf("%v is in a group of %v", m, g.What)
			}
		}
	}
}
