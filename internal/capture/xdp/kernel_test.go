package xdp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"portsentry/internal/bpf"
	"portsentry/internal/capture"
	"portsentry/internal/pktgen"
)

var logOnly = bpf.Rules{Sense: true}

func TestProbes(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, logOnly)
	c := collect(t, r.source, nil)
	mss := []byte{2, 4, 5, 0xb4}
	for _, test := range []struct {
		name string
		send func() pktgen.Packet
		want func(e *capture.Event) // changes what a SYN gives; nil: nothing is told
	}{
		{"SYN over IPv4", func() pktgen.Packet {
			p := r.syn4()
			p.TCPOptions, p.DF, p.IPID, p.TTL = mss, true, 0x1234, 51
			return p
		}, func(e *capture.Event) { e.TCPOptions, e.DF, e.IPID, e.TTL = mss, true, 0x1234, 51 }},
		{"SYN over IPv6", r.syn6, func(e *capture.Event) { e.Src, e.Dst = r.scanner.Addr6(), r.host.Addr6() }},
		{"extension headers", func() pktgen.Packet {
			p := r.syn6()
			p.ExtHeaders = []pktgen.ExtHeader{{Type: pktgen.DestOptions, Len: 16}}
			return p
		}, func(e *capture.Event) { e.Src, e.Dst, e.ExtHeaders = r.scanner.Addr6(), r.host.Addr6(), true }},
		{"tagged", func() pktgen.Packet {
			p := r.syn4()
			p.VLANs, p.QinQ = []uint16{0x2007, 9}, true
			return p
		}, func(e *capture.Event) { e.VLANs, e.VLAN = 2, [2]uint16{7, 9} }},
		{"wrong header checksum", func() pktgen.Packet {
			p := r.syn4()
			p.BadIPChecksum = true
			return p
		}, nil},
		{"NULL with everything", func() pktgen.Packet {
			p := r.syn4()
			p.Flags, p.Ack, p.Urgent, p.IPOptions, p.Payload = 0, 0xfffffffe, 9, []byte{1, 1, 1, 1}, make([]byte, 33)
			return p
		}, func(e *capture.Event) {
			e.Flags, e.Ack, e.Urgent, e.IPOptions, e.PayloadLen = 0, 0xfffffffe, 9, true, 33
		}},
		{"UDP", func() pktgen.Packet {
			return pktgen.Packet{Src: r.scanner.Addr4(), Dst: r.host.Addr4(), Proto: pktgen.ProtoUDP, SrcPort: 5, DstPort: trap2, Payload: []byte("x")}
		}, func(e *capture.Event) {
			e.Proto, e.SrcPort, e.DstPort, e.PayloadLen, e.Flags, e.Seq, e.Window = 17, 5, trap2, 1, 0, 0, 0
		}},
	} {
		before := time.Now()
		r.send(test.send())
		if test.want == nil { // no host would take it
			continue
		}
		got, _ := c.take(1, 0)
		if len(got) != 1 {
			t.Fatalf("%s: %d events", test.name, len(got))
		}
		// The second is for a clock that is set meanwhile.
		if at := time.Unix(0, got[0].Time); at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
			t.Errorf("%s: at %v, sent at %v", test.name, at, before)
		}
		want := capture.Event{
			Kind: capture.EventProbe, IfIndex: int32(r.host.Index), Src: r.scanner.Addr4(), Dst: r.host.Addr4(),
			SrcPort: 40000, DstPort: trap, Proto: 6, Flags: pktgen.SYN, Window: 1024, Seq: 7, TTL: 64, Times: 1,
		}
		test.want(&want)
		want.Time = got[0].Time
		if diff := cmp.Diff(want, got[0], cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// What the program drops is told of, once: its source is kept out then.
func TestHeld(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, TCP: bpf.BanAll})
	c := collect(t, r.source, nil)
	r.send(r.syn4())
	r.send(r.syn4())
	r.send(r.syn6())
	got, _ := c.take(2, 0)
	if len(got) != 2 || !got[0].Held || !got[1].Held || got[0].Src != r.scanner.Addr4() || got[1].Src != r.scanner.Addr6() {
		t.Errorf("%+v", got)
	}
}

func TestFragmentsAreFrames(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, logOnly)
	c := collect(t, r.source, nil)
	for _, p := range []pktgen.Packet{r.syn4(), r.syn6()} {
		p.Payload, p.FragmentSize = make([]byte, 900), 800
		frames, err := p.Frames(r.sender.Link())
		r.must(err)
		r.send(p)
		r.send(r.syn4()) // comes after them
		events, got := c.take(1, 1)
		if len(events) != 1 || len(got) == 0 {
			t.Fatalf("%d events, %d frames", len(events), len(got))
		}
		want := capture.Frame{
			Time: got[0].Time, Data: frames[0][:min(len(frames[0]), bpf.RawBytes)], WireLen: len(frames[0]), IfIndex: int32(r.host.Index),
			Link: capture.LinkEthernet, PacketType: capture.PacketHost, ChecksumPartial: true,
		}
		if diff := cmp.Diff(want, got[0]); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	if s := r.source.Workers()[0].Stats(); s.Events != 2 || s.Frames < 2 || s.Unread != 0 {
		t.Errorf("%+v", s)
	}
}

// Every probe of a flood is told of or counted, under its source and by the
// worker whose source it is.
func TestFloodIsAccountedFor(t *testing.T) {
	const count, sources = 100_000, 500
	for _, test := range []struct {
		name  string
		o     bpf.SensorOptions
		stuck bool // handlers do not return before the flood is over
	}{
		{"rings that overflow", bpf.SensorOptions{RingBytes: 32 << 10, Workers: 2}, true},
		{"small ring that is read", bpf.SensorOptions{RingBytes: 8 << 10}, false},
		{"rings with room", bpf.SensorOptions{Workers: 4}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, test.o, logOnly)
			over := make(chan struct{})
			if !test.stuck {
				close(over)
			}
			c := collect(t, r.source, func(int) { <-over })
			arrived := r.flood(r.syn4(), count, sources)
			if test.stuck {
				close(over)
			}
			eventually(t, "all to be told", func() bool { return c.probes() >= arrived })
			r.asleep()
			tally := r.tally()
			if tally.Sighted != arrived || tally.Events+tally.Counted != arrived || tally.Uncounted != 0 {
				t.Errorf("%d arrived: %+v", arrived, tally)
			}
			if test.stuck && tally.Counted == 0 {
				t.Error("no overload")
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			by, worker := make(map[netip.Addr]uint64), make(map[netip.Addr]int)
			busy := make(map[int]bool)
			for i := range c.events {
				e := &c.events[i]
				by[e.Src] += uint64(e.Times)
				if w, there := worker[e.Src]; there && w != c.worker[i] {
					t.Fatalf("%v: workers %d and %d", e.Src, w, c.worker[i])
				}
				worker[e.Src] = c.worker[i]
				busy[c.worker[i]] = true
			}
			if len(by) != sources || len(busy) != max(test.o.Workers, 1) {
				t.Errorf("%d sources, %d workers", len(by), len(busy))
			}
			if arrived == count {
				for src, n := range by {
					if n != count/sources {
						t.Errorf("%v: %d", src, n)
					}
				}
			}
			var wakeups uint64
			for _, w := range r.source.Workers() {
				s := w.Stats()
				wakeups += s.Wakeups
				if s.CountedLost != 0 || s.Unread != 0 {
					t.Errorf("%+v", s)
				}
			}
			t.Logf("%d arrived, %d counted, %d wake-ups", arrived, tally.Counted, wakeups)
			if wakeups > count/100 {
				t.Errorf("%d wake-ups", wakeups)
			}
		})
	}
}

// Who sleeps is woken by the first event, and by nothing else.
func TestSleep(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, logOnly)
	c := collect(t, r.source, nil)
	w := r.source.Workers()[0]
	harmless := r.syn4()
	harmless.DstPort = other
	for i := range 40 {
		r.asleep()
		before := w.Stats().Wakeups
		r.flood(harmless, 200, 20)
		if w.asleep.Load() == 0 {
			t.Fatal("woken by what is no probe")
		}
		r.send(r.syn4())
		sent := time.Now()
		c.take(1, 0)
		if took := time.Since(sent); took > time.Second {
			t.Errorf("told of after %v", took)
		}
		if got := w.Stats().Wakeups - before; got != 1 {
			t.Errorf("round %d: %d wake-ups", i, got)
		}
	}
}

// What came while the worker was awake, and woke nobody, keeps it from sleeping.
func TestSleepLooksAgain(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, logOnly)
	w := r.source.Workers()[0]
	r.send(r.syn4())
	eventually(t, "the event", func() bool { return w.ring.waiting() > 0 })
	done := make(chan error, 1)
	go func() { done <- w.sleep(func(*capture.Event) {}) }()
	if err := returns(t, done); err != nil || w.Stats().Wakeups != 0 || w.asleep.Load() != 0 {
		t.Errorf("%v, %+v", err, w.Stats())
	}
}
