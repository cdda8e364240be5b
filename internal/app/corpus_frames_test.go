package app

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/detect/crowd"
	"portsentry/internal/detect/flows"
	"portsentry/internal/detect/full"
	"portsentry/internal/detect/tools"
	"portsentry/internal/pktgen"
)

// oddScan is a scan made of packets that are not as usual: what, and of which ports, ICMP
// types or protocols; want is the kind and the protocol that it is to be called.
type oddScan struct {
	name string
	six  bool
	n    int
	make func(w *corpus, from netip.Addr, i int) [][]byte
	want string
}

// changed is a SYN scan whose packets are changed.
func changed(change func(p *pktgen.Packet)) func(*corpus, netip.Addr, int) [][]byte {
	return func(w *corpus, from netip.Addr, i int) [][]byte {
		p := w.rawSYN(from, uint16(600+i))
		change(&p)
		frames, err := p.Frames(nil)
		if err != nil {
			w.t.Fatal(err)
		}
		return frames
	}
}

func flagged(f uint16) func(*corpus, netip.Addr, int) [][]byte {
	return changed(func(p *pktgen.Packet) { p.Flags, p.TCPOptions = f, nil })
}

func asDatagram(p *pktgen.Packet) { p.Proto, p.Payload = pktgen.ProtoUDP, []byte("?") }

// icmps asks all of our addresses by an ICMP message of some type.
func icmps(kind uint8) func(*corpus, netip.Addr, int) [][]byte {
	return func(w *corpus, from netip.Addr, i int) [][]byte {
		b := w.icmp(from, kind, 0, make([]byte, 12))
		b[19] = byte(10 + i)
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], ^sum(b[:20], 0))
		return [][]byte{b}
	}
}

// cookieEcho is a COOKIE-ECHO of SCTP out of nowhere.
func cookieEcho(w *corpus, from netip.Addr, i int) [][]byte {
	p := w.rawSYN(from, uint16(600+i))
	p.Proto = pktgen.ProtoSCTP
	b := w.bytes(p)
	b[32] = 10
	clear(b[28:32])
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[20:], crc32.MakeTable(crc32.Castagnoli)))
	return [][]byte{b}
}

const fpu = pktgen.FIN | pktgen.PSH | pktgen.URG

var oddScans = []oddScan{
	{"whole", false, 6, changed(func(*pktgen.Packet) {}), "syn 6"},
	{"fragments of eight bytes", false, 6, changed(func(p *pktgen.Packet) { p.FragmentSize = 8 }), "syn 6"},
	{"fragments of 16 bytes", false, 6, changed(func(p *pktgen.Packet) { p.FragmentSize = 16 }), "syn 6"},
	{"fragments of IPv6", true, 6, changed(func(p *pktgen.Packet) { p.FragmentSize = 8 }), "syn 6"},
	{"datagrams in fragments", false, 12, changed(func(p *pktgen.Packet) { asDatagram(p); p.Payload, p.FragmentSize = make([]byte, 40), 8 }), "udp 17"},
	{"extension headers", true, 6, changed(func(p *pktgen.Packet) {
		p.ExtHeaders = []pktgen.ExtHeader{{Type: pktgen.HopByHop, Len: 8}, {Type: pktgen.DestOptions, Len: 64}}
	}), "syn 6"},
	{"wrong TCP checksum", false, 6, changed(func(p *pktgen.Packet) { p.BadChecksum = true }), "syn 6"},
	{"wrong IP checksum", false, 6, changed(func(p *pktgen.Packet) { p.BadIPChecksum = true }), "syn 6"},
	{"wrong UDP checksum", false, 12, changed(func(p *pktgen.Packet) { asDatagram(p); p.BadChecksum = true }), "udp 17"},
	{"wrong SCTP checksum", false, 6, changed(func(p *pktgen.Packet) { p.Proto, p.BadChecksum = pktgen.ProtoSCTP, true }), "sctp-init 132"},
	{"IP options", false, 6, changed(func(p *pktgen.Packet) { p.IPOptions = []byte{0x94, 4, 0, 0} }), "syn 6"},
	{"as many IP options as there can be", false, 6, changed(func(p *pktgen.Packet) { p.IPOptions = append([]byte{7, 39, 4}, make([]byte, 36)...) }), "syn 6"},
	{"IP options that end beyond themselves", false, 6, changed(func(p *pktgen.Packet) { p.IPOptions = []byte{0x83, 255, 4, 0} }), "syn 6"},
	{"TCP options without a length", false, 6, changed(func(p *pktgen.Packet) { p.TCPOptions = []byte{2, 0, 2, 0} }), "syn 6"},
	{"ECN", false, 6, flagged(pktgen.SYN | pktgen.ECE | pktgen.CWR), "syn 6"},
	{"FIN", false, 6, flagged(pktgen.FIN), "fin 6"},
	{"no flag", false, 6, flagged(0), "null 6"},
	{"XMAS", false, 6, flagged(fpu), "xmas 6"},
	{"FIN and ACK", false, 12, flagged(pktgen.FIN | pktgen.ACK), "maimon 6"},
	{"ACK", false, 12, flagged(pktgen.ACK), "ack 6"},
	{"SYN and FIN", false, 6, flagged(pktgen.SYN | pktgen.FIN), "odd 6"},
	{"URG", false, 6, flagged(pktgen.URG), "odd 6"},
	{"datagrams", false, 12, changed(asDatagram), "udp 17"},
	{"datagrams of IPv6", true, 12, changed(asDatagram), "udp 17"},
	{"SCTP INIT", false, 6, changed(func(p *pktgen.Packet) { p.Proto = pktgen.ProtoSCTP }), "sctp-init 132"},
	{"SCTP INIT over IPv6", true, 6, changed(func(p *pktgen.Packet) { p.Proto = pktgen.ProtoSCTP }), "sctp-init 132"},
	{"SCTP COOKIE-ECHO", false, 6, cookieEcho, "sctp-cookie 132"},
	{"IP protocols", false, 6, changed(func(p *pktgen.Packet) { p.Proto = uint8(p.DstPort - 600 + 143) }), "ip-protocol 0"},
	{"IP protocols of IPv6", true, 6, changed(func(p *pktgen.Packet) { p.Proto = uint8(p.DstPort - 600 + 143) }), "ip-protocol 0"},
	{"echo", false, 12, icmps(8), "icmp-sweep 1"},
	{"timestamps", false, 12, icmps(13), "icmp-timestamp 1"},
	{"masks", false, 12, icmps(17), "icmp-mask 1"},
	{"RST", false, 50, flagged(pktgen.RST), ""},
	{"SYN and ACK", false, 50, flagged(pktgen.SYN | pktgen.ACK), ""},
	{"data out of nowhere", false, 50, flagged(pktgen.ACK | pktgen.PSH), ""},
	{"GRE", false, 50, changed(func(p *pktgen.Packet) { p.Proto = 47 }), ""},
}

// 14. Fragments, wrong checksums, IP options, SCTP, odd protocols, as bytes: each scan
// has the right name, and what is none has none.
func TestCorpus14OddPackets(t *testing.T) {
	w := newCorpus(t)
	from := func(i int, six bool) netip.Addr {
		if six {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 1, byte(i), 15: 1})
		}
		return netip.AddrFrom4([4]byte{198, 18, byte(i), 1})
	}
	for i, o := range oddScans {
		for j := range o.n {
			for _, b := range o.make(w, from(i, o.six), j) {
				w.frame(b)
				w.pass(time.Millisecond)
			}
			w.pass(100 * time.Millisecond)
		}
	}
	w.end()
	got := make(map[netip.Addr][]string)
	for s := range w.engine.Scans() {
		got[s.Source] = append(got[s.Source], fmt.Sprint(s.Kind, " ", s.Proto))
	}
	for i, o := range oddScans {
		if s := strings.Join(got[from(i, o.six)], ", "); s != o.want {
			t.Errorf("%s: %q, want %q", o.name, s, o.want)
		}
	}
}

// 14, and: cut off anywhere, on the wire or by the capture, and damaged anyhow, nothing
// of it panics; and what ends before the ports and flags is said to be no packet.
func TestCorpus14Truncated(t *testing.T) {
	w := newCorpus(t)
	var whole [][]byte
	for i, o := range oddScans {
		from := netip.AddrFrom4([4]byte{198, 18, byte(i), 1})
		if o.six {
			from = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 1, byte(i), 15: 1})
		}
		whole = append(whole, o.make(w, from, 1)...)
	}
	syn := w.bytes(w.rawSYN(prober, 600))
	for n := range 20 + 14 {
		if st := w.frame(syn[:n]); st == decode.Complete {
			t.Errorf("a SYN of %d bytes is complete", n)
		}
	}
	for _, b := range whole {
		for n := range b {
			w.frame(b[:n])
			cut := slices.Clone(b[:n])
			if n >= 4 { // and the header says so
				binary.BigEndian.PutUint16(cut[2:], uint16(n))
			}
			w.frame(cut)
			w.pass(time.Millisecond)
		}
	}
	for range 20000 {
		w.frame(mutate(w.rng, whole[w.rng.IntN(len(whole))]))
		w.pass(time.Millisecond)
	}
	before := w.tracker.Stats().Packets
	w.end()
	if w.tracker.Stats().Packets == before || len(w.found()) == 0 {
		t.Error("nothing is seen any more")
	}
}

// 15. Four workers with a quarter of the sources each say the same of each source as
// one that has all. Scores are left out: they count what was forgotten by a filter that
// each keys for itself.
func TestCorpus15FourWorkers(t *testing.T) {
	t.Parallel()
	labels, err := tools.Load()
	if err != nil {
		t.Fatal(err)
	}
	engine := func(sources int) *full.Engine {
		return full.New(full.Options{
			Sources: sources, Scans: 4096, Local: func(a netip.Addr) bool { return contains(corpusNets, a) }, Labels: labels,
			Crowd: crowd.New(crowd.Options{KeyBits: keyBits(labels)}),
		})
	}
	one := engine(1 << 16)
	var four [4]*full.Engine
	for i := range four {
		four[i] = engine(1 << 14)
	}
	w := newCorpus(t)
	contacts := 0
	w.tracker = flows.New(flows.Options{}, func(c *detect.Contact) {
		contacts++
		one.Contact(c)
		four[workerOf(c.Src)].Contact(c)
	})
	mixture(w)
	w.tracker.Flush()
	want, got := toldBy(one), []string(nil)
	for i, e := range four {
		part := toldBy(e)
		if len(part) < 10 {
			t.Errorf("worker %d has %d scans", i, len(part))
		}
		got = append(got, part...)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("four say\n%s\none says\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(want) < 100 || contacts < 5000 {
		t.Errorf("%d scans, %d contacts: too few to say anything", len(want), contacts)
	}
}

// workerOf is that of a source: of an address, or of a /64, as the kernel has it.
func workerOf(a netip.Addr) int {
	b := a.As16()
	h := uint32(0)
	for _, x := range b[:8] {
		h = h*31 + uint32(x)
	}
	if a.Is4() {
		for _, x := range b[12:] {
			h = h*31 + uint32(x)
		}
	}
	return int(h * 0x9e3779b1 >> 30)
}

// mixture is a crowd: scans of several kinds, rotating addresses and clients, one packet
// of each in turn.
func mixture(w *corpus) {
	rng := rand.New(rand.NewPCG(3, 4))
	var who [400]netip.Addr
	for i := range who {
		who[i] = w.anybody()
	}
	for round := range 40 {
		for i, a := range who {
			port := uint16(100 + rng.Uint32()%900)
			switch i % 8 {
			case 0:
				w.refused(w.rawSYN(a, port))
			case 1:
				w.send(w.stackSYN(a, port))
			case 2:
				p := w.rawSYN(a, port)
				p.Proto = pktgen.ProtoUDP
				w.send(p)
			case 3: // from anywhere in a /64
				b := [16]byte{0x20, 1, 0xd, 0xb8, 9, byte(i), 8: byte(round), 15: byte(rng.Uint32())}
				w.refused(w.rawSYN(netip.AddrFrom16(b), port))
			case 4: // through our addresses
				p := w.rawSYN(a, 22)
				p.Dst = netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + round)})
				w.send(p)
			case 5: // a few dead ports, again and again
				w.refused(w.stackSYN(a, 600+port%4))
			case 6:
				p := w.rawSYN(a, port)
				p.Flags, p.TCPOptions = []uint16{pktgen.FIN, 0, fpu}[round%3], nil
				w.send(p)
			default:
				w.visit(a, 443)
			}
			w.pass(100 * time.Millisecond)
		}
	}
	w.pass(10 * time.Second)
	w.visit(w.anybody(), 443)
}

// toldBy is what an engine says of each source, sorted.
func toldBy(e *full.Engine) (out []string) {
	for s := range e.Scans() {
		one := *s
		one.Score, one.Campaign = 0, 0 // see the test; and each crowd has its own numbers
		out = append(out, fmt.Sprintf("%+v", one))
	}
	slices.Sort(out)
	return out
}
