package bpf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

// Verdicts of an XDP program (linux/bpf.h).
const (
	drop = 1
	pass = 2
)

var (
	own4, own6     = netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:1::1")
	other4, other6 = netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:1::2")
	from4, from6   = netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8:2::7")
	wire           = &pktgen.Link{Src: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Dst: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
)

const (
	trap      = 23
	noTrap    = 24
	latePort  = 40000 // a trap inside the ephemeral range
	anyone    = 50123 // a source port
	ethernet  = 14
	ipv4Fixed = 20
	ipv6Fixed = 40
)

// rig is the program in a network namespace of its own, run on bytes.
type rig struct {
	*bpf.Sensor
	t       testing.TB
	readers []*ringbuf.Reader
	before  bpf.Tally
}

// newRig loads the program with trap and latePort as traps of both protocols.
func newRig(t testing.TB, o bpf.SensorOptions, rules bpf.Rules) *rig {
	t.Helper()
	return rigUp(t, bpf.OpenSensor, o, rules)
}

func rigUp(t testing.TB, open func(bpf.SensorOptions) (*bpf.Sensor, error), o bpf.SensorOptions, rules bpf.Rules) *rig {
	t.Helper()
	bpf.EnterSpace(t)
	s, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Sensor: s, t: t}
	t.Cleanup(func() {
		for _, reader := range r.readers {
			reader.Close()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, m := range s.Rings() {
		reader, err := ringbuf.NewReader(m)
		if err != nil {
			t.Fatal(err)
		}
		r.readers = append(r.readers, reader)
	}
	var traps bpf.Ports
	for _, p := range []uint16{trap, latePort} {
		traps[p/64] |= 1 << (p % 64)
	}
	r.must(s.SetTraps(&traps, &traps))
	r.must(s.SetOwn([]netip.Addr{own4, own6, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}))
	r.rules(rules)
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// rules puts rules in force, with the usual ephemeral range.
func (r *rig) rules(rules bpf.Rules) {
	r.t.Helper()
	rules.EphemeralFirst, rules.EphemeralLast = 32768, 60999
	r.must(r.SetRules(rules))
}

// run gives the program a frame.
func (r *rig) run(frame []byte) (verdict uint32) {
	r.t.Helper()
	verdict, err := r.Program().Run(&ebpf.RunOptions{Data: frame})
	r.must(err)
	return verdict
}

// told is an event as it lay in a ring.
type told struct {
	bpf.Event
	worker int
	raw    []byte // what follows a WhatRaw
}

// events empties the rings.
func (r *rig) events() (all []told) {
	r.t.Helper()
	for worker, reader := range r.readers {
		r.must(reader.Flush())
		for {
			record, err := reader.Read()
			if errors.Is(err, ringbuf.ErrFlushed) {
				break
			}
			r.must(err)
			e := told{worker: worker, raw: record.RawSample[binary.Size(bpf.Event{}):]}
			r.must(binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &e.Event))
			all = append(all, e)
		}
	}
	return all
}

// counted is what the counters grew by since it was called last.
func (r *rig) counted() bpf.Tally {
	r.t.Helper()
	now, err := r.Tally()
	r.must(err)
	diff := now
	d, b := reflect.ValueOf(&diff).Elem(), reflect.ValueOf(r.before)
	for i := range d.NumField() {
		d.Field(i).SetUint(d.Field(i).Uint() - b.Field(i).Uint())
	}
	r.before = now
	return diff
}

// outcome is all that can be seen of what the program did with a frame.
type outcome struct {
	verdict    uint32
	what, made uint8 // of the one event; 0: there was none
	tally      bpf.Tally
}

// check runs frame and compares.
func (r *rig) check(name string, frame []byte, want outcome) {
	r.t.Helper()
	got := outcome{verdict: r.run(frame)}
	switch all := r.events(); len(all) {
	case 0:
	case 1:
		got.what, got.made = all[0].What, all[0].Made
	default:
		r.t.Errorf("%s: %d events", name, len(all))
	}
	if got.tally = r.counted(); got != want {
		r.t.Errorf("%s:\n got %+v\nwant %+v", name, got, want)
	}
}

// verdictOf runs frame and compares the verdict alone.
func (r *rig) verdictOf(name string, frame []byte, want uint32) {
	r.t.Helper()
	if got := r.run(frame); got != want {
		r.t.Errorf("%s: verdict %d, want %d", name, got, want)
	}
}

// Outcomes.
var (
	nothing   = outcome{verdict: pass}
	sighted   = outcome{verdict: pass, what: bpf.WhatProbe, tally: bpf.Tally{Sighted: 1, Events: 1}}
	banned    = outcome{verdict: drop, what: bpf.WhatProbe, made: uint8(bpf.Soft), tally: bpf.Tally{Sighted: 1, Hits: 1, Events: 1}}
	limited   = outcome{verdict: drop, what: bpf.WhatProbe, made: uint8(bpf.Limited), tally: bpf.Tally{Sighted: 1, Hits: 1, Events: 1}}
	noise     = outcome{verdict: pass, tally: bpf.Tally{Noise: 1}}
	bad       = outcome{verdict: pass, tally: bpf.Tally{Bad: 1}}
	elsewhere = outcome{verdict: pass, tally: bpf.Tally{NotOurs: 1}}
	raw       = outcome{verdict: pass, what: bpf.WhatRaw, tally: bpf.Tally{Events: 1}}
	served    = outcome{verdict: pass, tally: bpf.Tally{Served: 1}}
	reply     = outcome{verdict: pass, tally: bpf.Tally{Replies: 1}}
	asked     = outcome{verdict: pass, what: bpf.WhatQuestion, tally: bpf.Tally{Events: 1}}
	full      = outcome{verdict: drop, tally: bpf.Tally{DroppedFull: 1}}
	soft      = outcome{verdict: drop, tally: bpf.Tally{DroppedSoft: 1}}
	narrow    = outcome{verdict: drop, tally: bpf.Tally{DroppedLimited: 1}}
)

// frame builds the packet, unfragmented.
func frame(t testing.TB, p pktgen.Packet) []byte {
	t.Helper()
	b, err := p.AppendTo(nil, wire)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tcp and udp are packets from anyone's port; own4 or own6 is the destination.
func tcp(src netip.Addr, port, flags uint16) pktgen.Packet {
	p := pktgen.Packet{Src: src, Dst: own4, Proto: pktgen.ProtoTCP, SrcPort: anyone, DstPort: port, Flags: flags}
	if !src.Is4() {
		p.Dst = own6
	}
	return p
}

func udp(src netip.Addr, port uint16) pktgen.Packet {
	p := tcp(src, port, 0)
	p.Proto = pktgen.ProtoUDP
	return p
}

// icmp is a message of a type of the source's ICMP.
func icmp(t testing.TB, src netip.Addr, kind byte) []byte {
	t.Helper()
	p, at := tcp(src, 1, 0), ethernet+ipv4Fixed
	p.Proto = pktgen.ProtoICMP
	if !src.Is4() {
		p.Proto, at = pktgen.ProtoICMPv6, ethernet+ipv6Fixed
	}
	b := frame(t, p)
	b[at] = kind
	return b
}

// source is one of many.
func source(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64 | byte(i>>16&63), byte(i >> 8), byte(i)})
}

func source6(i int) netip.Addr {
	a := from6.As16()
	binary.BigEndian.PutUint32(a[4:], uint32(i)) // each in a /64 of its own
	return netip.AddrFrom16(a)
}
