package xdp

import (
	"net/netip"
	"testing"

	"portsentry/internal/bpf"
	"portsentry/internal/capture"
)

func TestFill(t *testing.T) {
	mapped := [16]byte{10: 255, 11: 255, 12: 192, 13: 0, 14: 2, 15: 1}
	base := bpf.Event{What: bpf.WhatProbe, Times: 1}
	base.Src.B, base.Dst.B = mapped, mapped
	for name, test := range map[string]struct {
		edit func(e *bpf.Event)
		ok   func(e *capture.Event) bool
	}{
		"IPv4": {func(*bpf.Event) {}, func(e *capture.Event) bool {
			return e.Src == netip.MustParseAddr("192.0.2.1") && e.Dst == e.Src && !e.DF && !e.IPOptions && !e.Peer && !e.Malformed && !e.Short && !e.ExtHeaders && !e.Held
		}},
		"mapped, in IPv6": {func(e *bpf.Event) { e.Ip = bpf.IPv6 }, func(e *capture.Event) bool {
			return e.Src == netip.MustParseAddr("::ffff:192.0.2.1") && e.Src.Is4In6()
		}},
		"bits of ip": {func(e *bpf.Event) { e.Ip = bpf.IPDontFragment | bpf.IPOptions | bpf.IPPeer | 3<<bpf.IPWorkerShift }, func(e *capture.Event) bool {
			return e.DF && e.IPOptions && e.Peer && e.Src.Is4()
		}},
		"wrong IP checksum":              {func(e *bpf.Event) { e.Marks = badIPChecksum }, func(e *capture.Event) bool { return e.Malformed && !e.Short }},
		"wrong checksum":                 {func(e *bpf.Event) { e.Marks = badChecksum }, func(e *capture.Event) bool { return e.Malformed }},
		"wrong length":                   {func(e *bpf.Event) { e.Marks = badLength }, func(e *capture.Event) bool { return e.Malformed }},
		"short":                          {func(e *bpf.Event) { e.Marks = shortPayload }, func(e *capture.Event) bool { return e.Short && !e.Malformed }},
		"extension headers":              {func(e *bpf.Event) { e.Marks = extHeaders }, func(e *capture.Event) bool { return e.ExtHeaders && !e.Malformed }},
		"held":                           {func(e *bpf.Event) { e.Made = 1 }, func(e *capture.Event) bool { return e.Held }},
		"no times":                       {func(e *bpf.Event) { e.Times = 0 }, func(e *capture.Event) bool { return e.Times == 1 }},
		"tags":                           {func(e *bpf.Event) { e.Vlans, e.Vlan = 9, [2]uint16{5, 6} }, func(e *capture.Event) bool { return e.VLANs == 2 && e.VLAN == [2]uint16{5, 6} }},
		"options":                        {func(e *bpf.Event) { e.OptionsLen, e.Options = 2, [40]byte{1, 2, 3} }, func(e *capture.Event) bool { return string(e.TCPOptions) == "\x01\x02" }},
		"more options than there can be": {func(e *bpf.Event) { e.OptionsLen = 200 }, func(e *capture.Event) bool { return len(e.TCPOptions) == 40 }},
		"for no trap":                    {func(e *bpf.Event) { e.What |= bpf.WhatNoTrap }, func(e *capture.Event) bool { return e.Closed && !e.Held }},
		"a trap's": {func(*bpf.Event) {}, func(e *capture.Event) bool {
			return !e.Closed && e.ICMPType == 0 && e.ICMPCode == 0 && e.SCTPChunk == 0
		}},
		"ICMP":                     {func(e *bpf.Event) { e.Proto, e.Options = 1, [40]byte{8, 3} }, func(e *capture.Event) bool { return e.ICMPType == 8 && e.ICMPCode == 3 && e.SCTPChunk == 0 }},
		"ICMPv6":                   {func(e *bpf.Event) { e.Proto, e.Ip, e.Options = 58, bpf.IPv6, [40]byte{128} }, func(e *capture.Event) bool { return e.ICMPType == 128 && len(e.TCPOptions) == 0 }},
		"ICMP, the other family's": {func(e *bpf.Event) { e.Proto, e.Options = 58, [40]byte{128} }, func(e *capture.Event) bool { return e.ICMPType == 0 }},
		"SCTP":                     {func(e *bpf.Event) { e.Proto, e.Options = 132, [40]byte{10} }, func(e *capture.Event) bool { return e.SCTPChunk == 10 && e.ICMPType == 0 }},
		"time":                     {func(e *bpf.Event) { e.Time = 5 }, func(e *capture.Event) bool { return e.Time == 1005 }},
	} {
		e := base
		test.edit(&e)
		// Nothing stays of the event before.
		got := capture.Event{Malformed: true, Short: true, Held: true, Peer: true, DF: true, IPOptions: true, ExtHeaders: true, Times: 9, Closed: true, ICMPType: 8, ICMPCode: 8, SCTPChunk: 8, TCPOptions: []byte("old")}
		fill(&got, &e, capture.EventProbe, 1000)
		if !test.ok(&got) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for what, want := range map[uint8]capture.EventKind{
		bpf.WhatProbe: capture.EventProbe, bpf.WhatQuestion: capture.EventQuestion, bpf.WhatVerified: capture.EventVerified,
		bpf.WhatProbe | bpf.WhatNoTrap: capture.EventProbe, bpf.WhatQuestion | bpf.WhatNoTrap: capture.EventQuestion,
		bpf.WhatCounted | bpf.WhatNoTrap: capture.EventCounted, bpf.WhatRaw | bpf.WhatNoTrap: 0,
		bpf.WhatLiving: capture.EventLiving, bpf.WhatCounted: capture.EventCounted, bpf.WhatRaw: 0, 0: 0, 99: 0,
	} {
		if got := kindOf(what); got != want {
			t.Errorf("%d: %d, want %d", what, got, want)
		}
	}
}

// Nobody's table grows without bound: what is not kept is counted.
func TestCountedIsBounded(t *testing.T) {
	x := &Source{}
	for range 2 {
		x.workers = append(x.workers, newMemory(4096).worker())
	}
	for range maxCounted + 3 {
		x.handOver(&bpf.Event{What: bpf.WhatCounted, Times: 5, Ip: 1 << bpf.IPWorkerShift})
	}
	x.handOver(&bpf.Event{What: bpf.WhatCounted, Times: 7})
	x.handOver(&bpf.Event{What: bpf.WhatCounted, Times: 1, Ip: 7 << bpf.IPWorkerShift})
	for i, want := range []struct{ events, times, lost uint64 }{{1, 7, 1}, {maxCounted, 5 * maxCounted, 15}} {
		var times uint64
		for range 2 { // the second time there is nothing left
			x.workers[i].deliverCounted(func(e *capture.Event) {
				if times += uint64(e.Times); e.Kind != capture.EventCounted {
					t.Fatal(e.Kind)
				}
			})
		}
		if s := x.workers[i].Stats(); times != want.times || s.Events != want.events || s.CountedLost != want.lost {
			t.Errorf("worker %d: %d times, %+v", i, times, s)
		}
	}
}

// A flood that fills the ring does not fill the heap besides.
func TestCountedAllocatesNothing(t *testing.T) {
	w := newMemory(4096).worker()
	flood := func() {
		for range maxCounted {
			w.take(&bpf.Event{Times: 1})
		}
		w.deliverCounted(func(*capture.Event) {})
	}
	flood()
	if n := testing.AllocsPerRun(3, flood); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
