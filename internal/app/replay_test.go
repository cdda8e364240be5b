package app

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/pktgen"
)

var prober = netip.MustParseAddr("203.0.113.9")

func trapRules(trigger int) detect.Rules {
	all := config.PortSet{{First: 1, Last: 1000}}.Bitmap()
	return detect.Rules{TCP: all, UDP: all, Trigger: trigger}
}

func anybody(netip.Addr) bool { return true }

// synTo is a SYN to a trap, at so many seconds.
func synTo(from netip.Addr, port uint16, at float64) *decode.Probe {
	return &decode.Probe{
		Time: int64(at * 1e9), Src: from, Dst: here, SrcPort: 40000, DstPort: port, Proto: decode.ProtoTCP, Flags: decode.SYN,
	}
}

// answered is the SYN-ACK to p, so many seconds later.
func answered(p *decode.Probe, after float64) *decode.Probe {
	return &decode.Probe{
		Time: p.Time + int64(after*1e9), Src: p.Dst, Dst: p.Src, SrcPort: p.DstPort, DstPort: p.SrcPort, Proto: p.Proto,
		Flags: decode.SYN | decode.ACK,
	}
}

// An answer counts for as long as one may take, and time that goes back ends what
// was before.
func TestReplayTrapsWait(t *testing.T) {
	for _, c := range []struct {
		name  string
		after float64
		found int
	}{{"at once", 0.001, 0}, {"late", 2.9, 0}, {"too late", 3.5, 1}} {
		e := newReplayTraps(trapRules(0), anybody)
		p := synTo(prober, 23, 100)
		e.packet(p, new(capture.Frame))
		// Other probes make the time go on.
		e.packet(synTo(prober, 23, 100+c.after), new(capture.Frame))
		e.packet(answered(p, c.after+0.0001), new(capture.Frame))
		if got := e.scans(); len(got) != c.found {
			t.Errorf("%s: %d scans", c.name, len(got))
		}
	}
	e := newReplayTraps(trapRules(0), anybody)
	e.packet(synTo(prober, 23, 100), new(capture.Frame))
	e.packet(synTo(prober, 24, 50), new(capture.Frame))
	if e.n != 1 {
		t.Errorf("%d wait", e.n)
	}
	if got := e.scans(); len(got) != 1 || got[0].Ports != 2 || got[0].First != 50e9 || got[0].Last != 100e9 {
		t.Errorf("%+v", got)
	}
}

// A flood judges the oldest early, and loses none.
func TestReplayTrapsFlood(t *testing.T) {
	e := newReplayTraps(trapRules(0), anybody)
	frame := new(capture.Frame)
	const n = 2*maxWaiting + 7
	for i := range n {
		e.packet(synTo(prober, uint16(1+i%1000), 100), frame)
	}
	if e.n > maxWaiting {
		t.Errorf("%d wait", e.n)
	}
	if got := e.scans(); len(got) != 1 || got[0].Probes != n || got[0].Ports != 1000 || got[0].Targets != 1 {
		t.Errorf("%+v", got)
	}
}

// What went to a group is for nobody here.
func TestReplayTrapsGroups(t *testing.T) {
	e := newReplayTraps(trapRules(0), anybody)
	for _, f := range []capture.Frame{
		{Link: capture.LinkEthernet, Data: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{Link: capture.LinkEthernet, Data: []byte{1, 0, 0x5e, 0, 0, 1}},
		{Link: capture.LinkSLL, PacketType: capture.PacketBroadcast},
		{Link: capture.LinkSLL, PacketType: capture.PacketMulticast},
	} {
		e.packet(synTo(prober, 23, 100), &f)
	}
	if got := e.scans(); len(got) != 0 {
		t.Errorf("%+v", got[0])
	}
}

// addrs gives as many different addresses as are asked for.
func addrs(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{203, byte(i >> 16), byte(i >> 8), byte(i)})
}

// Sources that have done too little make room, scanners stay, and what there is no
// room for is counted.
func TestReplayHitsAreBounded(t *testing.T) {
	h := newHits()
	add := func(from, n int, triggered bool) {
		for i := range n {
			h.add(&detect.Sighting{Src: addrs(from + i), Dst: here, DstPort: 23, Proto: decode.ProtoTCP, Kind: detect.KindSYN, Time: 1, Triggered: triggered})
		}
	}
	add(0, 3, true)
	add(100, 2*maxHitSources, false)
	if len(h.sources) > maxHitSources || len(h.order) != len(h.sources) || len(h.scans()) != 3 || h.lost != 0 {
		t.Errorf("%d sources, %d scans, %d lost", len(h.sources), len(h.scans()), h.lost)
	}
	add(1<<20, 2*maxHitSources, true)
	if got := len(h.scans()); len(h.sources) > maxHitSources || got < maxHitSources*3/4 || uint64(got)+h.lost < 2*maxHitSources {
		t.Errorf("%d sources, %d scans, %d lost", len(h.sources), got, h.lost)
	}
	if h.parts > maxHitParts {
		t.Errorf("%d parts", h.parts)
	}
}

func TestReplayDirection(t *testing.T) {
	for _, c := range []struct {
		ports, targets int
		want           detect.Direction
	}{
		{1, 1, detect.Vertical}, {1000, 1, detect.Vertical}, {1, 2, detect.Horizontal}, {2, 200, detect.Horizontal},
		{2, 2, detect.Block}, {20, 20, detect.Block},
	} {
		if got := direction(c.ports, c.targets); got != c.want {
			t.Errorf("%d ports, %d targets: %v", c.ports, c.targets, got)
		}
	}
}

// What a capture was heard to serve is bounded, and what is in use stays.
func TestReplayHeardIsBounded(t *testing.T) {
	e := newReplayTraps(trapRules(0), anybody)
	used := synTo(prober, 23, 1)
	e.host.hear(answered(used, 0.1))
	for i := range 3 * maxHeard {
		p := synTo(prober, 24, 1)
		p.Dst = addrs(i)
		e.host.hear(answered(p, 0.1))
		if i%1000 == 0 && e.host.Use(used, true) != detect.Served {
			t.Fatalf("forgotten after %d others", i)
		}
	}
	if n := len(e.host.fresh) + len(e.host.aged); n > 2*maxHeard {
		t.Errorf("%d are remembered", n)
	}
}

func TestReplayCaptureErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("pcapfile: %w", &fs.PathError{Op: "open", Path: "a", Err: fs.ErrPermission}), "a: permission denied; captures of root's are for root: sudo portsentry replay a"},
		{fmt.Errorf("pcapfile: a: %w", errors.New("something else")), "a: something else"},
		{errors.New("bare"), "a: bare"},
	} {
		if got := captureError("a", c.err).Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// On a terminal, and only there, it says how far it is, and wipes that away.
func TestReplayProgress(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("needs /dev/ptmx")
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("needs /dev/pts")
	}
	defer terminal.Close()
	p := newProgress(terminal)
	p.at(1) // too early
	p.clear()
	p.last = time.Now().Add(-2 * time.Second)
	p.at(1234567)
	p.clear()
	p.clear()
	fmt.Fprint(terminal, "end\n")
	said := ""
	for b := make([]byte, 100); !strings.Contains(said, "end"); {
		n, err := master.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		said += string(b[:n])
	}
	if want := "\r1,234,567 packets\r\x1b[Kend\r\n"; said != want {
		t.Errorf("%q, want %q", said, want)
	}
	if p := newProgress(new(strings.Builder)); p.to != nil {
		t.Error("a builder is no terminal")
	}
}

// A packet costs no allocation, in any detection, once its flow is known.
func TestReplayAllocatesNothing(t *testing.T) {
	for _, how := range []string{"full", "traps"} {
		f := replayFlags{detect: how}
		r, err := f.replay(new(strings.Builder))
		if err != nil {
			t.Fatal(err)
		}
		r.local.looking = false
		var frames []*capture.Frame
		for _, p := range []pktgen.Packet{
			{Src: prober, Dst: here, SrcPort: 40000, DstPort: 443, Proto: 6, Flags: pktgen.SYN},
			{Src: here, Dst: prober, SrcPort: 443, DstPort: 40000, Proto: 6, Flags: pktgen.SYN | pktgen.ACK},
			{Src: prober, Dst: here, SrcPort: 40000, DstPort: 443, Proto: 6, Flags: pktgen.ACK},
			{Src: prober, Dst: here, SrcPort: 40000, DstPort: 23, Proto: 6, Flags: pktgen.SYN},
			{Src: prober, Dst: here, SrcPort: 40000, DstPort: 69, Proto: 17},
			{Src: prober, Dst: here, SrcPort: 1, Proto: 1},
		} {
			b, err := p.AppendTo(nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			frames = append(frames, &capture.Frame{Data: b, WireLen: len(b), Link: capture.LinkRaw})
		}
		at := int64(1e18)
		play := func() {
			for _, f := range frames {
				at += 1e8
				f.Time = at
				r.frame(f)
			}
		}
		for range 100 {
			play()
		}
		if n := testing.AllocsPerRun(100, play); n != 0 {
			t.Errorf("%s: %v allocations for %d packets", how, n, len(frames))
		}
	}
}
