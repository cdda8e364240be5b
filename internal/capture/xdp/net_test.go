package xdp

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/capture"
	"portsentry/internal/pktgen"
)

// Ports of the tests: traps, and one that is none.
const (
	trap  = 11
	trap2 = 15
	other = 12
)

// rig is a host with the program on its only cable, and a scanner at the other
// end.
type rig struct {
	t             testing.TB
	net           *pktgen.Net
	host, scanner *pktgen.End
	sender        *pktgen.Sender
	sensor        *bpf.Sensor
	source        *Source
}

func newRig(t testing.TB, o bpf.SensorOptions, rules bpf.Rules) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root (network namespaces, BPF)")
		}
		t.Skip("needs root (network namespaces, BPF)")
	}
	r := &rig{t: t}
	var err error
	r.net, err = pktgen.NewNet()
	r.must(err)
	t.Cleanup(func() { r.check(r.net.Close()) })
	a, err := r.net.NewNS()
	r.must(err)
	b, err := r.net.NewNS()
	r.must(err)
	r.scanner, r.host, err = r.net.Link(a, b, prefixes("10.7.0.2/24", "fd07::2/64"), prefixes("10.7.0.1/24", "fd07::1/64"))
	r.must(err)
	r.must(r.scanner.StaticNeighbours())
	r.sender, err = r.scanner.Sender()
	r.must(err)
	t.Cleanup(func() { r.check(r.sender.Close()) })

	r.sensor, err = bpf.OpenSensor(o)
	r.must(err)
	t.Cleanup(func() { r.check(r.sensor.Close()) })
	var tcp, udp bpf.Ports
	for _, p := range []int{trap, trap2} {
		tcp[p/64] |= 1 << (p % 64)
		udp[p/64] |= 1 << (p % 64)
	}
	r.must(r.sensor.SetTraps(&tcp, &udp))
	r.must(r.sensor.SetOwn([]netip.Addr{r.host.Addr4(), r.host.Addr6()}))
	r.must(r.sensor.SetRules(rules))
	r.source, err = Open(r.sensor)
	r.must(err)
	t.Cleanup(func() { r.check(r.source.Close()) })
	for ifindex, err := range r.attach(false, r.host.Index) {
		t.Fatalf("interface %d: %v", ifindex, err)
	}
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) check(err error) {
	if err != nil {
		r.t.Error(err)
	}
}

// attach is SetInterfaces in the host's namespace.
func (r *rig) attach(generic bool, indexes ...int) (errs map[int32]error) {
	r.t.Helper()
	var list []int32
	for _, i := range indexes {
		list = append(list, int32(i))
	}
	r.must(r.host.NS.Do(func() error { errs = r.source.SetInterfaces(list, generic); return nil }))
	return errs
}

func (r *rig) syn4() pktgen.Packet {
	return pktgen.Packet{
		Src: r.scanner.Addr4(), Dst: r.host.Addr4(), Proto: pktgen.ProtoTCP,
		SrcPort: 40000, DstPort: trap, Flags: pktgen.SYN, Seq: 7, Window: 1024,
	}
}

func (r *rig) syn6() pktgen.Packet {
	p := r.syn4()
	p.Src, p.Dst = r.scanner.Addr6(), r.host.Addr6()
	return p
}

func (r *rig) send(p pktgen.Packet) {
	r.t.Helper()
	r.must(r.sender.SendPacket(p))
}

// flood sends p from the first sources addresses of 10.8.0.0/16, and gives how
// many frames arrived.
func (r *rig) flood(p pktgen.Packet, count, sources int) uint64 {
	r.t.Helper()
	o := pktgen.FloodOpts{Count: count, Sources: sources, SourcePrefix: netip.MustParsePrefix("10.8.0.0/16")}
	sent, err := r.sender.Flood(r.t.Context(), p, o)
	r.must(err)
	return uint64(sent.Frames - sent.Dropped)
}

func (r *rig) tally() bpf.Tally {
	r.t.Helper()
	c, err := r.sensor.Tally()
	r.must(err)
	return c
}

func prefixes(s ...string) []netip.Prefix {
	var p []netip.Prefix
	for _, s := range s {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// collector runs the workers and keeps copies of what they hand out.
type collector struct {
	t      testing.TB
	mu     sync.Mutex
	events []capture.Event
	frames []capture.Frame
	worker []int            // that handed events[i] out
	before func(worker int) // called before an event is kept
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func collect(t testing.TB, s *Source, before func(worker int)) *collector {
	ctx, cancel := context.WithCancel(t.Context())
	c := &collector{t: t, cancel: cancel, before: before}
	for i, w := range s.Workers() {
		c.wg.Go(func() {
			if err := w.Run(ctx, func(e *capture.Event) { c.event(i, e) }, c.frame); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(c.stop)
	return c
}

func (c *collector) event(worker int, e *capture.Event) {
	if c.before != nil {
		c.before(worker)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := *e
	kept.TCPOptions = bytes.Clone(e.TCPOptions)
	c.events, c.worker = append(c.events, kept), append(c.worker, worker)
}

func (c *collector) frame(f *capture.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := *f
	kept.Data = bytes.Clone(f.Data)
	c.frames = append(c.frames, kept)
}

func (c *collector) stop() {
	c.cancel()
	c.wg.Wait()
}

// take waits for n events and n frames, and takes them.
func (c *collector) take(events, frames int) ([]capture.Event, []capture.Frame) {
	c.t.Helper()
	eventually(c.t, "events and frames", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.events) >= events && len(c.frames) >= frames
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	e, f := slices.Clone(c.events), slices.Clone(c.frames)
	c.events, c.worker, c.frames = nil, nil, nil
	return e, f
}

// probes is how many probes the events so far stand for.
func (c *collector) probes() (n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.events {
		n += uint64(c.events[i].Times)
	}
	return n
}

// asleep waits until all workers sleep.
func (r *rig) asleep() {
	r.t.Helper()
	eventually(r.t, "all workers to sleep", func() bool {
		return !slices.ContainsFunc(r.source.workers, func(w *Worker) bool { return w.asleep.Load() == 0 })
	})
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited 10 s for %s", what)
		case <-tick.C:
		}
	}
}

// returns waits for Run.
func returns(t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(5 * time.Second):
		t.Fatal("Run goes on")
		return errors.New("unreachable")
	}
}
