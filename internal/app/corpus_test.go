package app

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"portsentry/internal/capture"
	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/detect/crowd"
	"portsentry/internal/detect/flows"
	"portsentry/internal/detect/full"
	"portsentry/internal/detect/memory"
	"portsentry/internal/detect/tools"
	"portsentry/internal/pktgen"
)

// The corpus: what detectors are known to get wrong, as packets. Each test is one line
// of it and has its number. Time is that of the packets.

var (
	corpusHost  = netip.MustParseAddr("192.0.2.1")
	corpusHost6 = netip.MustParseAddr("2001:db8::1")
	corpusNets  = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
)

// corpusStart is when the packets begin, unix nanoseconds: a Monday, at noon UTC.
var corpusStart = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC).UnixNano()

// corpusKey is a full.Options.Key with which ports 1001 to 1008 have a bit each in
// detect.Memory.Ports. Two ports with one bit count once after a restart, by design.
const corpusKey = 5

// corpus is the detection of a replay, and what is on the wire before it.
type corpus struct {
	*replayFull
	t       *testing.T
	decoder decode.Decoder
	probe   decode.Probe
	past    *memory.Long // nil: nothing is remembered for days
	now     int64
	rng     *rand.Rand
	next    uint16 // port of the next client
}

func newCorpus(t *testing.T) *corpus {
	t.Helper()
	none := detect.Rules{TCP: new(config.Bitmap), UDP: new(config.Bitmap)}
	r, err := newReplayFull(none, newLocalNetworks(corpusNets))
	if err != nil {
		t.Fatal(err)
	}
	w := &corpus{replayFull: r, t: t, now: corpusStart, rng: rand.New(rand.NewPCG(7, 11)), next: 32768}
	w.visit(w.anybody(), 443) // the capture has begun, and shows who is served
	w.pass(time.Minute)
	return w
}

// pass lets time pass.
func (w *corpus) pass(d time.Duration) { w.now += int64(d) }

// restart saves what is remembered and begins anew with nothing else.
func (w *corpus) restart() {
	w.t.Helper()
	if w.past == nil {
		w.past = memory.New(memory.Options{})
	} else {
		w.tracker.Flush()
		w.engine.Remember()
	}
	var file bytes.Buffer
	err := w.past.Save(&file, new(sync.Mutex))
	if err == nil {
		w.past, err = memory.Load(&file, memory.Options{})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	labels, err := tools.Load()
	if err != nil {
		w.t.Fatal(err)
	}
	w.crowd = crowd.New(crowd.Options{KeyBits: keyBits(labels)})
	w.engine = full.New(full.Options{Local: func(a netip.Addr) bool { return contains(corpusNets, a) }, Labels: labels, Past: w.past, Crowd: w.crowd, Key: corpusKey})
	w.tracker = flows.New(flows.Options{}, w.contact)
}

// anybody is an address somewhere, another one each time.
func (w *corpus) anybody() netip.Addr {
	for {
		n := w.rng.Uint32()
		a := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		if first := byte(n >> 24); first > 0 && first != 127 && first < 224 && !a.IsPrivate() && !contains(corpusNets, a) {
			return a
		}
	}
}

// frame takes an IP packet.
func (w *corpus) frame(b []byte) decode.Status {
	f := capture.Frame{Time: w.now, Data: b, WireLen: len(b), Link: capture.LinkRaw}
	st := w.decoder.Decode(&f, &w.probe)
	if st == decode.Complete {
		w.packet(&w.probe, &f)
	}
	return st
}

// bytes is p as it is on the wire.
func (w *corpus) bytes(p pktgen.Packet) []byte {
	w.t.Helper()
	b, err := p.AppendTo(nil, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// icmp is an ICMP message over IPv4 of any type.
func (w *corpus) icmp(from netip.Addr, kind, code uint8, body []byte) []byte {
	w.t.Helper()
	b := w.bytes(pktgen.Packet{Src: from, Dst: corpusHost, Proto: pktgen.ProtoICMP, Payload: body})
	b[20], b[21], b[22], b[23] = kind, code, 0, 0
	binary.BigEndian.PutUint16(b[22:], ^sum(b[20:], 0))
	return b
}

// send takes a packet, in fragments if it is to be, and a moment.
func (w *corpus) send(p pktgen.Packet) {
	w.t.Helper()
	frames, err := p.Frames(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, b := range frames {
		w.frame(b)
		w.pass(time.Microsecond)
	}
}

// stackSYN is the SYN of somebody's Linux, from a port of its own each time.
func (w *corpus) stackSYN(from netip.Addr, port uint16) pktgen.Packet {
	w.next = max(w.next+1, 32768)
	return pktgen.Packet{
		Src: from, Dst: hostFor(from), Proto: 6, SrcPort: w.next, DstPort: port, Flags: pktgen.SYN, Seq: w.rng.Uint32(), Window: 64240,
		IPID: w.rng.Uint32() & 0xffff, TTL: 52, DF: from.Is4(),
		TCPOptions: []byte{2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7},
	}
}

// rawSYN is that of a program which makes its packets itself.
func (w *corpus) rawSYN(from netip.Addr, port uint16) pktgen.Packet {
	p := w.stackSYN(from, port)
	p.Window, p.TCPOptions, p.DF = 1000, []byte{2, 4, 0x05, 0xb4}, false
	return p
}

func hostFor(from netip.Addr) netip.Addr {
	if from.Is4() {
		return corpusHost
	}
	return corpusHost6
}

// reply is what the other side of p answers.
func reply(p pktgen.Packet, flags uint16) pktgen.Packet {
	return pktgen.Packet{
		Src: p.Dst, Dst: p.Src, Proto: 6, SrcPort: p.DstPort, DstPort: p.SrcPort, Flags: flags, Seq: 0x1000, Ack: p.Seq + 1, Window: 65160, DF: p.DF,
	}
}

// refused sends p, which is told that nobody is there.
func (w *corpus) refused(p pktgen.Packet) {
	w.send(p)
	w.send(reply(p, pktgen.RST|pktgen.ACK))
}

// visit is a connection in which something is said.
func (w *corpus) visit(from netip.Addr, port uint16) {
	p := w.stackSYN(from, port)
	w.send(p)
	w.send(reply(p, pktgen.SYN|pktgen.ACK))
	p.Flags, p.Seq, p.Ack, p.TCPOptions = pktgen.ACK, p.Seq+1, 0x1001, nil
	w.send(p)
	p.Flags, p.Payload = pktgen.ACK|pktgen.PSH, []byte("hello")
	w.send(p)
}

// found are the scans as they stand, "source kind direction".
func (w *corpus) found() (out []string) {
	for s := range w.engine.Scans() {
		out = append(out, fmt.Sprint(s.Source, " ", s.Kind, " ", s.Direction))
	}
	return out
}

// end is the end of the packets.
func (w *corpus) end() []*detect.Scan {
	w.pass(10 * time.Second)
	w.visit(w.anybody(), 443)
	return w.scans()
}

// noScan says at the end that there was none, and no group.
func (w *corpus) noScan() {
	w.t.Helper()
	w.end()
	if got := w.found(); len(got) > 0 {
		w.t.Errorf("%d scans that are none: %q", len(got), got[:min(5, len(got))])
	}
	for _, g := range w.groups {
		w.t.Errorf("a group that is none: %v of %d, %s", g.What, g.Count, g.Reason)
	}
}

// group is the only group there is.
func (w *corpus) group(what crowd.What) crowd.Group {
	w.t.Helper()
	w.collect()
	for _, g := range w.groups {
		if len(w.groups) == 1 && g.What == what {
			return g
		}
		w.t.Logf("%v of %d: %s", g.What, g.Count, g.Reason)
	}
	w.t.Fatalf("%d groups, want one of %v", len(w.groups), what)
	return crowd.Group{}
}

// only says that the scans are these, in whatever order.
func (w *corpus) only(want ...string) {
	w.t.Helper()
	got := w.found()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("found %q, want %q", got, want)
	}
}
