package flows

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// syn is the nth of as many SYNs to as many ports and addresses.
func syn(n int, at time.Duration) decode.Probe {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 10<<24+uint32(n>>8))
	return decode.Probe{
		Time: start + int64(at), Src: hosts[0]["C"], Dst: netip.AddrFrom4(b), Proto: decode.ProtoTCP,
		SrcPort: 40000, DstPort: uint16(n & 255), Flags: decode.SYN, Seq: uint32(n), TTL: 64,
	}
}

// TestFlood: what is being answered, and who is talking, is not pushed out by a
// flood, which is sampled instead; later everything finds room again.
func TestFlood(t *testing.T) {
	silent, known := 0, 0
	tr := New(Options{Flows: 1024}, func(c *detect.Contact) {
		if c.Outcome != detect.Silent {
			known++
			return
		}
		silent++
	})
	// Four conversations, each active every 100 ms through the flood.
	talk := func(at time.Duration) {
		for i := range 4 {
			p := syn(1<<24+i, at)
			p.Flags, p.PayloadLen = decode.ACK|decode.PSH, 10
			tr.Packet(&p, nil)
		}
	}
	talk(0)
	const n = 80_000
	for i := range n {
		at := time.Duration(i) * 125 * time.Microsecond // 8,000 a second: ten seconds
		if i%800 == 0 {
			talk(at)
		}
		p := syn(i, at)
		tr.Packet(&p, nil)
	}
	tr.Flush()
	s := tr.Stats()
	if s.Full == 0 || s.Evicted == 0 || s.Contacts != uint64(silent) || known != 0 {
		t.Errorf("%+v, %d silent, %d others", s, silent, known)
	}
	if silent < 5*1024 || silent > 11*1024 {
		t.Errorf("%d contacts in ten seconds from a table of 1024", silent)
	}
	for i := range 4 {
		p := syn(1<<24+i, 0)
		k, _ := pair(classTCP, p.Src, p.Dst, p.SrcPort, p.DstPort)
		if tr.at(&k, tr.place(&k)) == none {
			t.Errorf("conversation %d was pushed out", i)
		}
	}
	waiting := 0
	for i := range tr.entries {
		if tr.entries[i].due != 0 {
			waiting++
		}
	}
	if waiting != 0 || tr.waiting.head != none || tr.waiting.tail != none {
		t.Errorf("%d wait after the end, queue %+v", waiting, tr.waiting)
	}
}

// TestFast: 65,535 ports in three seconds find room in the default table.
func TestFast(t *testing.T) {
	n := 0
	tr := New(Options{}, func(*detect.Contact) { n++ })
	for i := range 65535 {
		p := syn(i, time.Duration(i)*45*time.Microsecond)
		tr.Packet(&p, nil)
	}
	tr.Flush()
	if n < 65500 {
		t.Errorf("%d contacts, %+v", n, tr.Stats())
	}
}

// TestClock: time may jump and run backwards.
func TestClock(t *testing.T) {
	var at []int64
	tr := New(Options{Flows: 1024}, func(c *detect.Contact) { at = append(at, c.Time-start) })
	step := func(n int, d time.Duration, want int) {
		t.Helper()
		p := syn(n, d)
		tr.Packet(&p, nil)
		if len(at) != want {
			t.Fatalf("after %v: %d contacts, want %d", d, len(at), want)
		}
	}
	step(1, 0, 0)
	step(2, -time.Second, 0) // out of order
	step(3, 2900*time.Millisecond, 0)
	step(4, 3*time.Second, 2)
	step(5, 30*24*time.Hour, 4) // days later
	step(6, time.Minute, 5)     // the clock was set back: what waited is over
	step(7, time.Minute+2*time.Second, 5)
	step(8, time.Minute+3*time.Second, 6)
	p := syn(5, time.Minute+4*time.Second) // again, after what seems to be years
	tr.Packet(&p, nil)
	tr.Flush()
	if len(at) != 9 {
		t.Errorf("%d contacts, want 9", len(at))
	}
	for i := range 3000 { // what is from the future does not keep its place
		p := syn(1000+i, 2*time.Minute+time.Duration(i)*10*time.Millisecond)
		tr.Packet(&p, nil)
	}
	if s := tr.Stats(); s.Full != 0 {
		t.Errorf("%+v", s)
	}
}

// TestEnd: the end of a capture makes nobody silent who may have been about to
// answer, but where no answers are to be seen there is nothing to wait for.
func TestEnd(t *testing.T) {
	for _, s := range []script{
		{packets: "0 tcp C:1000 S:80 S\n0.001 tcp C:1000 S:81 S\nEND",
			want: []string{"C:1000>S:80 syn silent", "C:1000>S:81 syn silent"}},
		{packets: "0 tcp C:1000 S:80 S\n0.1 tcp S:80 C:1000 RA\n0.2 tcp C:1000 S:81 S\n1 tcp C:1000 S:82 S\nEND",
			want: []string{"C:1000>S:80 syn refused", "C:1000>S:81 syn silent"}},
	} {
		got, _ := play(t, s.packets, false)
		if len(got) != len(s.want) {
			t.Errorf("%s: got %v, want %v", s.packets, got, s.want)
		}
	}
}

func TestAllocations(t *testing.T) {
	g := &traffic{scan: 3}
	tr := New(Options{Flows: 2048}, func(*detect.Contact) {})
	var p decode.Probe
	if n := testing.AllocsPerRun(3, func() {
		for range 20_000 {
			g.next(&p)
			tr.Packet(&p, nil)
		}
	}); n != 0 {
		t.Errorf("%v allocations for 20,000 packets", n)
	}
}
