package replay_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"portsentry/internal/pktgen"
)

var (
	server  = netip.MustParseAddr("198.51.100.10")
	client  = netip.MustParseAddr("198.51.100.77")
	scanner = netip.MustParseAddr("203.0.113.9")
	began   = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

// tape is a capture in the making. Times are whole microseconds, so that every
// format holds them.
type tape struct {
	t       testing.TB
	now     time.Time
	records []record
	port    uint16 // of the next connection, at its client
}

type record struct {
	at   time.Time
	data []byte
}

func newTape(t testing.TB) *tape { return &tape{t: t, now: began, port: 40000} }

// wire is the Ethernet header of all frames.
var wire = &pktgen.Link{Src: []byte{2, 0, 0, 0, 0, 1}, Dst: []byte{2, 0, 0, 0, 0, 2}}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// send adds a packet, after a pause.
func (t *tape) send(pause time.Duration, p *pktgen.Packet) {
	t.now = t.now.Add(pause)
	data, err := p.AppendTo(nil, wire)
	must(t.t, err)
	t.records = append(t.records, record{t.now, data})
}

func (t *tape) tcp(pause time.Duration, from, to netip.AddrPort, flags uint16, payload ...byte) {
	t.send(pause, &pktgen.Packet{
		Src: from.Addr(), SrcPort: from.Port(), Dst: to.Addr(), DstPort: to.Port(), Proto: pktgen.ProtoTCP, Flags: flags,
		Seq: 1000, Ack: 2000, Window: 64240, Payload: payload, DF: true, TCPOptions: []byte{2, 4, 5, 180},
	})
}

func (t *tape) udp(pause time.Duration, from, to netip.AddrPort, payload ...byte) {
	t.send(pause, &pktgen.Packet{
		Src: from.Addr(), SrcPort: from.Port(), Dst: to.Addr(), DstPort: to.Port(), Proto: pktgen.ProtoUDP, Payload: payload,
	})
}

func (t *tape) next(a netip.Addr) netip.AddrPort {
	if t.port++; t.port == 60000 {
		t.port = 40000
	}
	return netip.AddrPortFrom(a, t.port)
}

const few = 200 * time.Microsecond

// visit is a connection that is made, used and closed: 10 packets.
func (t *tape) visit(from, to netip.Addr, port uint16) {
	const A, F, P, S = pktgen.ACK, pktgen.FIN, pktgen.PSH, pktgen.SYN
	c, s := t.next(from), netip.AddrPortFrom(to, port)
	t.tcp(few, c, s, S)
	t.tcp(few, s, c, S|A)
	t.tcp(few, c, s, A)
	t.tcp(few, c, s, P|A, bytes.Repeat([]byte("q"), 200)...)
	t.tcp(few, s, c, A)
	t.tcp(few, s, c, P|A, bytes.Repeat([]byte("a"), 1200)...)
	t.tcp(few, c, s, A)
	t.tcp(few, c, s, F|A)
	t.tcp(few, s, c, F|A)
	t.tcp(few, c, s, A)
}

// question is a datagram with its answer.
func (t *tape) question(from, to netip.Addr, port uint16) {
	c, s := t.next(from), netip.AddrPortFrom(to, port)
	t.udp(few, c, s, bytes.Repeat([]byte("q"), 40)...)
	t.udp(few, s, c, bytes.Repeat([]byte("a"), 120)...)
}

// probe is a SYN that is refused.
func (t *tape) probe(pause time.Duration, from, to netip.Addr, port uint16) {
	c, s := t.next(from), netip.AddrPortFrom(to, port)
	t.tcp(pause, c, s, pktgen.SYN)
	t.tcp(few, s, c, pktgen.RST|pktgen.ACK)
}

// scan is n probes of ports from first on.
func (t *tape) scan(from, to netip.Addr, first, n int) {
	for port := first; port < first+n; port++ {
		t.probe(time.Millisecond, from, to, uint16(port))
	}
}

// pcap is the tape as a file of that format.
func (t *tape) pcap(order binary.AppendByteOrder, nanos bool) []byte {
	magic, tick := uint32(0xa1b2c3d4), time.Microsecond
	if nanos {
		magic, tick = 0xa1b23c4d, time.Nanosecond
	}
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(order.AppendUint16(b, 2), 4)
	for _, v := range []uint32{0, 0, 262144, 1} {
		b = order.AppendUint32(b, v)
	}
	for _, r := range t.records {
		for _, v := range []uint32{uint32(r.at.Unix()), uint32(r.at.Nanosecond() / int(tick)), uint32(len(r.data)), uint32(len(r.data))} {
			b = order.AppendUint32(b, v)
		}
		b = append(b, r.data...)
	}
	return b
}

// pcapng is the tape in that format, in nanoseconds.
func (t *tape) pcapng(order binary.AppendByteOrder) []byte {
	block := func(kind uint32, body []byte) []byte {
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
		n := uint32(len(body) + 12)
		b := order.AppendUint32(order.AppendUint32(nil, kind), n)
		return order.AppendUint32(append(b, body...), n)
	}
	section := order.AppendUint32(nil, 0x1a2b3c4d)
	section = order.AppendUint16(order.AppendUint16(section, 1), 0)
	b := block(0x0a0d0d0a, order.AppendUint64(section, 1<<64-1))
	face := order.AppendUint16(order.AppendUint16(nil, 1), 0)
	face = order.AppendUint32(face, 0)
	face = order.AppendUint16(order.AppendUint16(face, 9), 1)
	b = append(b, block(1, append(face, 9, 0, 0, 0, 0, 0, 0, 0))...)
	for _, r := range t.records {
		stamp := uint64(r.at.UnixNano())
		var body []byte
		for _, v := range []uint32{0, uint32(stamp >> 32), uint32(stamp), uint32(len(r.data)), uint32(len(r.data))} {
			body = order.AppendUint32(body, v)
		}
		b = append(b, block(6, append(body, r.data...))...)
	}
	return b
}

func zipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

// file writes a file of that name into a folder of the test's.
func file(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, b, 0o600))
	return path
}

// save is file with the tape as most programs write one.
func (t *tape) save(name string) string {
	t.t.Helper()
	return file(t.t, name, t.pcap(binary.LittleEndian, false))
}
