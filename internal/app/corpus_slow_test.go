package app

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/detect/crowd"
	"portsentry/internal/detect/full"
	"portsentry/internal/detect/memory"
)

// heap is the memory in use, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// 3. For ten minutes 300 forged sources a second ask for one port, or for three any port,
// and somebody tries a port every 15 s: he is found, nobody else is, and what is in use does not grow beyond
// its bounds. Where all of them ask for one port that port counts for nothing, his others
// do as ever, and his fifth decides. Where they ask for any port twice the score is asked
// for, because so many names come up: his tenth decides, and the forged ones are remembered
// for as long as there is room.
func TestCorpus03SlowAmongForged(t *testing.T) {
	for _, c := range []struct {
		what  string
		ports uint32
		secs  int
		nth   int
		grows int64 // bytes
	}{{"one port", 1, 600, 5, 1 << 20}, {"any port", 1 << 16, 180, 10, memory.DefaultBytes * 3 / 2}} {
		t.Run(c.what, func(t *testing.T) {
			w := newCorpus(t)
			w.restart() // with the long memory
			scanner := w.anybody()
			begun := w.now
			var before int64
			for sec := range c.secs {
				if sec == 90 {
					before = heap()
				}
				if sec%15 == 0 {
					w.refused(w.rawSYN(scanner, uint16(1000+sec/15)))
				}
				for i := range 300 {
					n, m := w.rng.Uint32(), w.rng.Uint32()
					p := decode.Probe{
						Time: w.now, Src: netip.AddrFrom4([4]byte{byte(16 + n>>28), byte(n >> 16), byte(n >> 8), byte(n)}), Dst: corpusHost,
						SrcPort: uint16(m >> 16), DstPort: uint16(22 + m%c.ports),
						Proto: decode.ProtoTCP, Flags: decode.SYN, Seq: n * m, Window: 512, TTL: 40 + uint8(i%20),
					}
					w.packet(&p, nil)
					w.pass(time.Second / 300)
				}
			}
			if grown := heap() - before; grown > c.grows {
				t.Errorf("as much again, and more, took %d bytes more", grown)
			}
			w.end()
			w.only(scanner.String() + " syn vertical")
			for s := range w.engine.Scans() {
				if late := s.Found - begun - int64(c.nth-1)*int64(15*time.Second); late < -int64(time.Second) || late > int64(time.Second) || s.Probes != c.secs/15 {
					t.Errorf("found after %v, %d probes", time.Duration(s.Found-begun), s.Probes)
				}
			}
		})
	}
}

// 6. One probe in 15 s, 300 s, an hour: found at the fifth, among visitors, from the
// packets and without any memory beside the one that looks at every contact.
func TestCorpus06SlowScan(t *testing.T) {
	for _, gap := range []time.Duration{15 * time.Second, 300 * time.Second, time.Hour} {
		for _, refuses := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/refuses=%v", gap, refuses), func(t *testing.T) {
				w := newCorpus(t)
				scanner := w.anybody()
				for i := range uint16(5) {
					if got := w.found(); len(got) > 0 {
						t.Fatalf("after %d ports: %q", i, got)
					}
					if p := w.rawSYN(scanner, 1001+i); refuses {
						w.refused(p)
					} else {
						w.send(p)
					}
					for range 5 {
						w.pass(gap / 5)
						w.visit(w.anybody(), 443)
					}
				}
				w.end()
				w.only(scanner.String() + " syn vertical")
			})
		}
	}
}

// 6, and: five ports on five days, a port a day, with a restart between: found on the
// fifth. Who tries four ports, all of them each day, is not.
func TestCorpus06FiveDays(t *testing.T) {
	w := newCorpus(t)
	w.restart()
	scanner, other := w.anybody(), w.anybody()
	for day := range uint16(5) {
		if got := w.found(); len(got) > 0 {
			t.Fatalf("after %d days: %q", day, got)
		}
		w.send(w.rawSYN(scanner, 1001+day))
		for port := range uint16(4) {
			w.send(w.rawSYN(other, 1001+port))
			w.pass(10 * time.Minute)
		}
		w.visit(w.anybody(), 443)
		if day < 4 {
			w.restart()
		}
		w.pass(23 * time.Hour)
	}
	w.end()
	w.only(scanner.String() + " syn vertical")
}

// Generated scans: one port every 15 s to 6 h, while 300 forged addresses a second fail
// too, each once. There is no crowd here to freeze the flood: all of it is scored, which
// is the worst for the memory. Five failures are enough as far as fading goes, for each
// of these gaps is within the horizon. From an hour on the first failure is pushed off
// probation by the forged ones (262,144 of them have room, which is a quarter of an
// hour) and is forgotten but for the doorkeeper: those scans are found at the sixth port.
func TestCorpusGeneratedScans(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		gap time.Duration
		nth int
	}{{15 * time.Second, 5}, {300 * time.Second, 5}, {time.Hour, 6}, {6 * time.Hour, 6}} {
		t.Run(c.gap.String(), func(t *testing.T) {
			if c.gap >= time.Hour && os.Getenv("PORTSENTRY_LONG") == "" {
				t.Skip("runs in make test-long")
			}
			horizon := memory.Horizon(5, float64(full.Step), float64(full.Threshold), memory.DefaultHalfLife)
			if c.gap > horizon {
				t.Fatalf("the horizon is %v", horizon)
			}
			at := generatedScans(t, c.gap)
			t.Logf("horizon %v; found at the nth port: %v", horizon, at)
			early, late := 0, 0
			for nth, n := range at {
				if nth < 5 {
					early += n
				} else if nth > c.nth {
					late += n
				}
			}
			// One in a hundred has no room on probation, and is found a port later.
			if early > 0 || late > 1 {
				t.Errorf("of %d scans %d were found before the fifth port, %d after the %dth: %v", generatedScanners, early, late, c.nth, at)
			}
		})
	}
}

const generatedScanners = 16

// generatedScans is how many scans are found at which port, at [9] those that are not.
func generatedScans(t *testing.T, gap time.Duration) (at [10]int) {
	e := full.New(full.Options{
		Local: func(a netip.Addr) bool { return a == corpusHost }, Past: memory.New(memory.Options{}), Key: corpusKey,
	})
	rng := rand.New(rand.NewPCG(uint64(gap), 1))
	c := detect.Contact{Dst: corpusHost, Proto: decode.ProtoTCP, Kind: detect.KindSYN, Outcome: detect.Silent}
	now := corpusStart
	try := func(from netip.Addr, port uint16) bool {
		c.Time, c.Src, c.SrcPort, c.DstPort = now, from, uint16(rng.Uint32()), port
		c.Head = detect.Header{
			Dst: corpusHost, SrcPort: c.SrcPort, DstPort: port, Proto: c.Proto, Flags: decode.SYN, Seq: rng.Uint32(), Window: 1000,
			MSS: 1460, OptionsLen: 4, TTL: 50,
		}
		return e.Contact(&c) != nil
	}
	scanner := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}) }
	var found [generatedScanners]bool
	for nth := uint16(1); nth <= 8; nth++ {
		for i := range found {
			if !found[i] && try(scanner(i), 1000+nth) {
				found[i] = true
				at[nth]++
			}
		}
		if nth == 8 {
			break
		}
		const each = int64(time.Second / 300)
		for end := now + int64(gap); now < end; now += each {
			n := rng.Uint32()
			forged := netip.AddrFrom4([4]byte{100, byte(n >> 16), byte(n >> 8), byte(n)})
			if gap > 300*time.Second { // 16 million are too few to be once each
				forged = netip.AddrFrom4([4]byte{byte(n >> 24 & 127), byte(n >> 16), byte(n >> 8), byte(n)})
			}
			if try(forged, 22) {
				t.Fatalf("%v is found, who did nothing", forged)
			}
		}
		done := true
		for _, f := range found {
			done = done && f
		}
		if done {
			return at
		}
	}
	for _, f := range found {
		if !f {
			at[9]++
		}
	}
	return at
}

// A flood of one port in forged names, half of it refused at once, half never answered:
// refused contacts have the time of now, silent ones that of three seconds ago. One
// notice of a flood, as when all are silent.
func TestCorpus03BothOutcomes(t *testing.T) {
	for _, refused := range []int{0, 2, 1} { // none, every second, all
		w := newCorpus(t)
		for i := range 300 * 60 {
			p := decode.Probe{
				Time: w.now, Src: w.anybody(), Dst: corpusHost, SrcPort: uint16(w.rng.Uint32()), DstPort: 22, Proto: decode.ProtoTCP,
				Flags: decode.SYN, Seq: w.rng.Uint32(), Window: 512, TTL: 40 + uint8(i%20),
			}
			w.packet(&p, nil)
			if refused > 0 && i%refused == 0 {
				p.Src, p.Dst, p.SrcPort, p.DstPort, p.Flags = p.Dst, p.Src, p.DstPort, p.SrcPort, decode.RST|decode.ACK
				w.packet(&p, nil)
			}
			w.pass(time.Second / 300)
		}
		w.end()
		floods := 0
		for _, n := range w.notices {
			if n.What == crowd.Flood {
				floods++
			}
		}
		if floods != 1 {
			t.Errorf("every %dth refused: %d notices of a flood", refused, floods)
		}
	}
}
