package app

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"portsentry/internal/pktgen"
)

// What other networks do, beyond the corpus: busy machines that look like scanners, and
// scanners that do not look like one.

// machine is one of 250 in a network beside ours.
func machine(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + i)}) }

// to is p for somebody else.
func to(p pktgen.Packet, dst netip.Addr) pktgen.Packet {
	p.Dst = dst
	return p
}

// greeted is a connection in which something is said, from SYN to the first words.
func (w *corpus) greeted(p pktgen.Packet) {
	w.send(p)
	w.send(reply(p, pktgen.SYN|pktgen.ACK))
	p.Flags, p.Seq, p.Ack, p.TCPOptions = pktgen.ACK, p.Seq+1, 0x1001, nil
	w.send(p)
	p.Flags, p.Payload = pktgen.ACK|pktgen.PSH, []byte("GET /metrics")
	w.send(p)
}

// A machine that looks after sixty others asks all of them at once, round after round.
// Twelve are off, or have no such service: those are known last, when all others have
// answered.
func TestWorldBurstOfChecks(t *testing.T) {
	t.Parallel()
	for _, refused := range []bool{true, false} {
		t.Run(fmt.Sprint("refused ", refused), func(t *testing.T) {
			w := newCorpus(t)
			watcher := w.anybody()
			for range 20 {
				var gone []pktgen.Packet
				for i := range 60 {
					p := to(w.stackSYN(watcher, 9100), machine(i))
					if i%5 == 2 {
						w.send(p)
						gone = append(gone, p)
						continue
					}
					w.greeted(p)
				}
				w.pass(20 * time.Millisecond)
				for _, p := range gone {
					if refused {
						w.send(reply(p, pktgen.RST|pktgen.ACK))
					}
				}
				w.pass(15 * time.Second)
			}
			w.noScan()
		})
	}
}

// Who finds some of what he scans at once is forgiven no more for it: the burst above
// ends, and later there is a scan.
func TestWorldScanAfterBurst(t *testing.T) {
	t.Parallel()
	w := newCorpus(t)
	from := w.anybody()
	for i := range 60 {
		w.greeted(to(w.stackSYN(from, 9100), machine(i)))
	}
	w.pass(10 * time.Second)
	for i := range 6 {
		w.send(to(w.stackSYN(from, uint16(1001+i)), machine(0)))
		w.pass(10 * time.Millisecond)
	}
	w.pass(10 * time.Second)
	w.onlyScan(fmt.Sprint(from, " connect block")) // with the machines that it found
}

// onlyScan wants one scan, "source kind direction".
func (w *corpus) onlyScan(want string) {
	w.t.Helper()
	w.end()
	if got := w.found(); !slices.Equal(got, []string{want}) {
		w.t.Errorf("%q, want %q", got, want)
	}
}

// A scanner that looks by packets of its own whether anybody is there, and goes on with
// connect(2): the probes do not give their name to the scan.
func TestWorldConnectAfterRawProbes(t *testing.T) {
	t.Parallel()
	w := newCorpus(t)
	from := w.anybody()
	for _, port := range []uint16{443, 80} {
		p := w.rawSYN(from, port)
		p.Window = 1024 // nmap's
		w.refused(p)
	}
	for i := range 40 {
		w.refused(w.stackSYN(from, uint16(1001+i)))
		w.pass(10 * time.Millisecond)
	}
	w.onlyScan(fmt.Sprint(from, " connect vertical"))
}

// Every port answers, and whoever asks resets each before the handshake is done: he
// wants to know, not to talk. A balancer that looks at one port of sixty machines in this
// way is none, nor is a client of many ports whose words are not in the capture.
func TestWorldHalfOpen(t *testing.T) {
	t.Parallel()
	halfOpen := func(w *corpus, p pktgen.Packet) {
		w.send(p)
		w.send(reply(p, pktgen.SYN|pktgen.ACK))
		p.Flags, p.Seq, p.Window, p.TCPOptions = pktgen.RST, p.Seq+1, 0, nil
		w.send(p)
		w.pass(5 * time.Millisecond)
	}
	t.Run("scan", func(t *testing.T) {
		w := newCorpus(t)
		from := w.anybody()
		for i := range 300 {
			halfOpen(w, w.rawSYN(from, uint16(1001+i)))
		}
		w.onlyScan(fmt.Sprint(from, " syn vertical"))
	})
	t.Run("balancer", func(t *testing.T) {
		w := newCorpus(t)
		from := w.anybody()
		for range 50 {
			for i := range 60 {
				halfOpen(w, to(w.stackSYN(from, 8080), machine(i)))
				halfOpen(w, to(w.stackSYN(from, 8443), machine(i)))
			}
			w.pass(5 * time.Second)
		}
		w.noScan()
	})
	t.Run("client", func(t *testing.T) {
		w := newCorpus(t)
		from := w.anybody()
		for i := range 300 {
			p := w.stackSYN(from, uint16(40000+i))
			w.send(p)
			w.send(reply(p, pktgen.SYN|pktgen.ACK))
			p.Flags, p.Seq, p.Ack, p.TCPOptions = pktgen.FIN|pktgen.ACK, p.Seq+1, 0x1001, nil
			w.send(p)
			w.pass(50 * time.Millisecond)
		}
		w.noScan()
	})
}

// One service is looked for at addresses that lie anywhere, one of each network: with
// packets that no stack sends, or a service that nobody has at strangers'. Peers of a file
// sharing network that are gone, and mail servers, are asked for by many, with a stack.
func TestWorldScattered(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		port uint16
		raw  bool
		want string
	}{
		{"packets of its own", 8291, true, "syn horizontal"},
		{"packets of its own, the Web", 443, true, "syn horizontal"},
		{"secure shell", 22, false, "connect horizontal"},
		{"peers", 8333, false, ""},
		{"peers at a system port", 80, false, ""},
		{"mail", 25, false, ""},
		{"DNS", 53, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newCorpus(t)
			from := w.anybody()
			for range 200 {
				p := w.stackSYN(from, c.port)
				if c.raw {
					p = w.rawSYN(from, c.port)
				}
				w.send(to(p, w.anybody()))
				w.pass(100 * time.Millisecond)
			}
			if c.want == "" {
				w.noScan()
			} else {
				w.onlyScan(fmt.Sprint(from, " ", c.want))
			}
		})
	}
}

// What servers and clients ask of many addresses of one network, and get no answer to.
func TestWorldServicesWithManyAddresses(t *testing.T) {
	t.Parallel()
	six := func(i int) netip.Addr {
		return netip.AddrFrom16([16]byte{0x26, 6, 0x47, 14: byte(i >> 8), 15: byte(i)})
	}
	for _, c := range []struct {
		name string
		six  bool
		n    int
		udp  bool
		port uint16
	}{
		{"mail servers of a provider, behind a filter", false, 12, false, 25},
		{"who our clients are (RFC 1413)", false, 25, false, 113},
		{"the Web by datagrams", false, 30, true, 443},
		{"all names of a network that delivers the Web, over an IPv6 that goes nowhere", true, 100, false, 443},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newCorpus(t)
			from := w.anybody()
			if c.six {
				from = netip.MustParseAddr("2001:db8:9::7")
			}
			for i := range c.n {
				dst := machine(i)
				if c.six {
					dst = six(i)
				}
				p := to(w.stackSYN(from, c.port), dst)
				if c.udp {
					p.Proto, p.Payload, p.TCPOptions = pktgen.ProtoUDP, make([]byte, 1200), nil
				}
				w.send(p)
				w.pass(time.Second)
			}
			w.noScan()
		})
	}
}

// Servers that are made to send us what somebody asked for in our name: from the port of
// the service to any of ours.
func TestWorldReflectors(t *testing.T) {
	t.Parallel()
	w := newCorpus(t)
	for _, port := range []uint16{19, 53, 123, 161, 389, 1900, 3283, 3702, 10001, 11211, 27015, 32414, 37810} {
		for range 5 {
			from := w.anybody()
			for range 60 {
				w.send(pktgen.Packet{
					Src: from, Dst: corpusHost, Proto: pktgen.ProtoUDP, SrcPort: port, DstPort: uint16(12000 + w.rng.Uint32()%50000),
					TTL: 52, Payload: make([]byte, 400),
				})
				w.pass(20 * time.Millisecond)
			}
		}
	}
	w.noScan()
}
