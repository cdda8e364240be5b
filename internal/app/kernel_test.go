package app

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/capture"
	"portsentry/internal/capture/xdp"
	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// The addresses that the packets of package decode are for.
var home4, home6 = netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("2001:db8:1::9")

// bareHost has these addresses and nothing on any port.
type bareHost struct{}

func (bareHost) Own(a netip.Addr) bool              { return a == home4 || a == home6 }
func (bareHost) Ephemeral(port uint16) bool         { return port >= 32768 && port <= 60999 }
func (bareHost) Use(*decode.Probe, bool) detect.Use { return detect.Free }

// answer is what one of the two ways makes of a frame.
type answer struct {
	seen     bool
	probe    decode.Probe
	sighting detect.Sighting
}

// reader is the way through user space.
type reader struct {
	decoder  *decode.Decoder
	detector *detect.Detector
}

func newReader() *reader {
	ports := config.PortSet{{First: 0, Last: 65535}}.Bitmap()
	return &reader{new(decode.Decoder), detect.New(detect.Options{
		Rules: detect.Rules{TCP: ports, UDP: ports}, Host: bareHost{}, Sources: 8,
	})}
}

// decode reads a frame that comes alone.
func (r *reader) decode(f *capture.Frame, p *decode.Probe) decode.Status {
	if r.decoder.Stats().Fragments > 0 {
		r.decoder = new(decode.Decoder)
	}
	return r.decoder.Decode(f, p)
}

func (r *reader) observe(p *decode.Probe) (a answer) {
	if a.seen = r.detector.Observe(p, &a.sighting); a.seen {
		a.probe = *p
	}
	// When, where and how often it came is no question of reading.
	a.probe.Time, a.probe.IfIndex, a.probe.PacketType = 0, 0, 0
	a.sighting.Time, a.sighting.IfIndex, a.sighting.Count = 0, 0, 0
	return a
}

// program is the XDP program in a namespace of its own, run on bytes, and what
// it tells as package capture/xdp hands it out.
type program struct {
	sensor *bpf.Sensor
	xdp    *ebpf.Program
	jobs   chan func() // for the thread in the namespace
	told   chan any    // decode.Probe of an event, *capture.Frame, or an error
	events uint64      // handed to the ring
	closed bool        // what it tells is for no trap
}

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root: loads an XDP program and makes a network namespace")
	}
}

// newProgram makes every port a trap of a host that serves nothing and only
// tells.
func newProgram(t testing.TB) *program {
	t.Helper()
	p := &program{jobs: make(chan func()), told: make(chan any, 1<<12)}
	go func() {
		runtime.LockOSThread() // never unlocked: the namespace ends with the thread
		for job := range p.jobs {
			job()
		}
	}()
	t.Cleanup(func() { close(p.jobs) })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	p.do(func() { err = unix.Unshare(unix.CLONE_NEWNET) })
	must(err)
	p.sensor, err = bpf.OpenSensor(bpf.SensorOptions{})
	must(err)
	var all bpf.Ports
	for i := range all {
		all[i] = ^uint64(0)
	}
	must(p.sensor.SetTraps(&all, &all))
	must(p.sensor.SetOwn([]netip.Addr{home4, home6}))
	must(p.sensor.SetRules(bpf.Rules{Sense: true, EphemeralFirst: 32768, EphemeralLast: 60999}))
	source, err := xdp.Open(p.sensor)
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- source.Workers()[0].Run(ctx, p.event, p.frame) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, source.Close(), p.sensor.Close()); err != nil {
			t.Error(err)
		}
	})
	p.do(func() { p.xdp, err = running(p.sensor) })
	must(err)
	t.Cleanup(func() { p.xdp.Close() })
	return p
}

// do runs f in the namespace. f must not end the test.
func (p *program) do(f func()) {
	done := make(chan struct{})
	p.jobs <- func() { defer close(done); f() }
	<-done
}

// running gives the program of s, which is its own affair; but whatever it runs
// on can be asked for it.
func running(s *bpf.Sensor) (*ebpf.Program, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	index := int32(lo.Attrs().Index)
	if err := s.Attach(index, true); err != nil {
		return nil, err
	}
	if lo, err = netlink.LinkByName("lo"); err != nil {
		return nil, err
	}
	x, err := ebpf.NewProgramFromID(ebpf.ProgramID(lo.Attrs().Xdp.ProgId))
	return x, errors.Join(err, s.Detach(index))
}

func (p *program) event(e *capture.Event) {
	if e.Kind != capture.EventProbe || e.Closed != p.closed || e.Held || e.Peer || e.Malformed || e.Short || e.Times != 1 {
		p.told <- fmt.Errorf("%+v", *e)
		return
	}
	var probe decode.Probe
	probe.FromEvent(e)
	p.told <- probe
}

func (p *program) frame(f *capture.Frame) {
	frame := *f
	frame.Data = slices.Clone(f.Data)
	p.told <- &frame
}

// give runs the program on frame, and reports whether it told of it.
func (p *program) give(t testing.TB, frame []byte) bool {
	t.Helper()
	var verdict uint32
	var err error
	p.do(func() { verdict, err = p.xdp.Run(&ebpf.RunOptions{Data: frame}) })
	if err != nil || verdict != 2 { // XDP_PASS
		t.Fatalf("%x: verdict %d, %v", frame, verdict, err)
	}
	c, err := p.sensor.Tally()
	if err != nil {
		t.Fatal(err)
	}
	n := c.Events - p.events
	if p.events = c.Events; n > 1 || c.Counted > 0 {
		t.Fatalf("%x: %d events, %+v", frame, n, c)
	}
	return n == 1
}

// next is what the program told next.
func (p *program) next(t testing.TB) any {
	t.Helper()
	select {
	case v := <-p.told:
		return v
	case <-time.After(5 * time.Second):
		t.Fatal("an event was counted and does not come")
		return nil
	}
}

// agree compares what user space makes of a frame with what the program told of
// it; nil: nothing.
func (r *reader) agree(t testing.TB, data []byte, told any) (seen bool) {
	t.Helper()
	var p, strict decode.Probe
	f := &capture.Frame{Data: data, WireLen: len(data), Link: capture.LinkEthernet, ChecksumPartial: true}
	st := r.decode(f, &p)
	var want answer
	if st == decode.Complete {
		want = r.observe(&p)
	}
	// The program does not know who was to compute the checksum of the transport.
	// What is no evidence with a wrong one, it may take for evidence only where
	// it does not sum, or finds the sum of the pseudo-header.
	f.ChecksumPartial = false
	wrong := r.decode(f, &strict) == decode.Complete && strict.Marks&decode.BadChecksum != 0
	fragment, headers := shape(data)
	switch told := told.(type) {
	case error:
		t.Errorf("%x: unexpected event %v", data, told)
	case decode.Probe:
		got := r.observe(&told)
		if !got.seen || got != want {
			t.Errorf("%x:\nprogram %+v\ndecode  %d, %+v", data, got, st, want)
		}
		if wrong && headers == 0 && len(data) <= 1500 && !leftToCard(data) {
			t.Errorf("%x: the program did not see that the checksum is wrong", data)
		}
	case *capture.Frame:
		if !fragment && headers <= 6 && !p.Src.Is4In6() {
			t.Errorf("%x: the program left it to user space, decode says %d", data, st)
		}
		var got answer
		if told.WireLen != len(data) || !slices.Equal(told.Data, data[:len(told.Data)]) {
			t.Errorf("%x: the program handed over %d, %x", data, told.WireLen, told.Data)
		}
		if r.decode(told, &p) == decode.Complete {
			got = r.observe(&p)
		}
		if got != want {
			t.Errorf("%x: of what the program handed over %+v, of the frame %+v", data, got, want)
		}
	case nil:
		// PPPoE and 802.3 frames have interfaces of their own, or are no IP for Linux.
		if want.seen && ours(data) && !wrong {
			t.Errorf("%x: the program is silent, decode says %+v", data, want)
		}
		return false
	}
	return want.seen
}

// TestKernelAgrees: the program and decode with detect are two readers of the
// same packets, and give one answer.
func TestKernelAgrees(t *testing.T) {
	needsRoot(t)
	p := newProgram(t)
	rng := rand.New(rand.NewPCG(1, 2))
	base := seeds(t)
	const mutants, batch = 20_000, 500
	frames := slices.Clone(base)
	for range mutants {
		frames = append(frames, mutate(rng, base[rng.IntN(len(base))]))
	}
	r, seen, left := newReader(), 0, 0
	for part := range slices.Chunk(frames, batch) {
		told := make([]bool, len(part))
		for i, b := range part {
			told[i] = p.give(t, b)
		}
		for i, b := range part {
			var v any
			if told[i] {
				v = p.next(t)
			}
			if _, raw := v.(*capture.Frame); raw {
				left++
			}
			if r.agree(t, b, v) {
				seen++
			}
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d frames, %d sightings, %d left to user space", len(frames), seen, left)
	if seen < mutants/5 || left < mutants/50 {
		t.Errorf("%d sightings and %d left to user space: too few to mean anything", seen, left)
	}
}

// FuzzKernelAgrees is the same for whatever the fuzzer finds.
func FuzzKernelAgrees(f *testing.F) {
	needsRoot(f)
	for _, b := range seeds(f) {
		f.Add(b)
	}
	p, r := newProgram(f), newReader()
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 14 || len(b) > 9000 {
			return // the kernel runs no program on less
		}
		var v any
		if p.give(t, b) {
			v = p.next(t)
		}
		r.agree(t, b, v)
	})
}
