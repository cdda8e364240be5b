package app

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture/afpacket"
	"portsentry/internal/capture/listen"
	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/host"
)

// packetPath is where packets are looked at below the sockets: the ring, and
// what each of its workers does.
type packetPath struct {
	ring      *afpacket.Ring
	pipelines []*pipeline

	wanted   sync.Mutex    // guards what follows, and what the ring is to capture
	services *host.Sockets // asked which datagrams are for somebody
	ports    watchedPorts
	scans    bool
	udp      config.PortSet // that it captures
}

// socketPath is where trap sockets accept, in connect mode.
type socketPath struct {
	traps    *listen.Traps
	contacts *contacts
}

// workers is how many goroutines take packets in: half of the CPUs, for the
// other half has work of its own, and no more than a 10 Gbit/s flood needs.
func workers() int { return max(1, min(4, runtime.NumCPU()/2)) }

// setPackets points the ring and its detectors at the trap ports of c, and opens
// the ring when a mode of c is the first to need one.
func (d *daemon) setPackets(c *config.Config) error {
	rules, _ := d.rules(c)
	if p := d.packets.Load(); p != nil {
		for _, one := range p.pipelines {
			one.detector.SetRules(rules)
			if err := d.setScanner(one, c); err != nil {
				return err
			}
		}
		return d.capture(p, c)
	}
	if !needsPackets(c) || d.sensing(c) {
		return nil // or until an interface wants it
	}
	return d.openRing(c)
}

// openRing opens the packet ring.
func (d *daemon) openRing(c *config.Config) error {
	services, err := host.NewSockets()
	if err != nil {
		return fmt.Errorf("who listens: %w", err)
	}
	ring, err := afpacket.Open(afpacket.Config{Workers: workers(), RingBytes: 8 << 20})
	if err != nil {
		return errors.Join(fmt.Errorf("capture: %w", err), services.Close())
	}
	p := &packetPath{ring: ring, services: services}
	if err := d.capture(p, c); err != nil {
		return errors.Join(err, ring.Close(), services.Close())
	}
	for range ring.Workers() {
		one, err := d.newPipeline(c)
		if err != nil {
			return errors.Join(err, ring.Close(), services.Close())
		}
		p.pipelines = append(p.pipelines, one)
	}
	d.onStop(services.Close)
	d.onStop(ring.Close)
	d.packets.Store(p)
	if d.capturing != nil {
		d.runPackets(p)
	}
	return nil
}

// capture points the ring at what c is about.
func (d *daemon) capture(p *packetPath, c *config.Config) error {
	p.wanted.Lock()
	defer p.wanted.Unlock()
	p.ports, p.scans = portsOf(c), findsScans(c)
	udp, err := d.datagrams(p)
	if err == nil {
		err = errors.Join(p.ring.SetPorts(p.ports.packets.tcp, udp), p.ring.SetScans(p.scans))
	}
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	p.udp = udp
	return nil
}

// datagrams are the UDP ports that p is to capture.
func (d *daemon) datagrams(p *packetPath) (config.PortSet, error) {
	if !p.scans {
		return p.ports.packets.udp, nil
	}
	all, err := p.services.Listeners()
	if err != nil {
		return nil, fmt.Errorf("who listens: %w", err)
	}
	var served []uint16
	for _, l := range all {
		if l.Proto == unix.IPPROTO_UDP {
			served = append(served, l.Port)
		}
	}
	s := d.facts.watcher.Snapshot()
	return datagramPorts(p.ports.packets.udp, served, s.EphemeralFirst, s.EphemeralLast), nil
}

// followPause is for how long after its start each datagram to a service may be
// looked at.
const followPause = 10 * time.Second

// followServices keeps the datagrams of services away from p, whose filter cannot
// tell the first one of a flow. What gets through is asked about all the same.
func (d *daemon) followServices(ctx context.Context, p *packetPath) error {
	tick := time.NewTicker(followPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			said := ""
			if err := d.followOnce(p); err != nil {
				said = fmt.Sprintf("SCAN_DETECT: every datagram to a service that has just started is looked at: %v", err)
			}
			d.problems.set("datagrams", said)
		}
	}
}

func (d *daemon) followOnce(p *packetPath) error {
	p.wanted.Lock()
	defer p.wanted.Unlock()
	udp, err := d.datagrams(p)
	if err != nil || slices.Equal(udp, p.udp) {
		return err
	}
	if err := p.ring.SetPorts(p.ports.packets.tcp, udp); err != nil {
		return err
	}
	p.udp = udp
	return nil
}

// strangerQuestions is what may be asked a second about packets that are for no trap.
const strangerQuestions = 5000

// setScanner has p find scans, or not, as c says. With an end to it, what it found out
// about sources is handed over.
func (d *daemon) setScanner(p *pipeline, c *config.Config) error {
	switch {
	case !findsScans(c):
		if s := p.scans.Swap(nil); s != nil {
			s.remember()
		}
	case p.scans.Load() == nil:
		if p.strangers.lookup == nil {
			lookup, err := host.NewLookup(strangerQuestions)
			if err != nil {
				return fmt.Errorf("who listens: %w", err)
			}
			p.strangers.lookup = lookup
		}
		shared, err := d.fullFor(c)
		if err != nil {
			return err
		}
		p.scans.Store(d.scansOf(shared))
	}
	return nil
}

// newPipeline makes the packet path of one worker.
func (d *daemon) newPipeline(c *config.Config) (*pipeline, error) {
	lookup, err := host.NewLookup(host.Questions)
	if err != nil {
		return nil, fmt.Errorf("who listens: %w", err)
	}
	d.problems.set("lookup", lookup.Fallback())
	rules, _ := d.rules(c)
	h, strangers := &asHost{facts: d.facts, lookup: lookup, sent: d.sent}, &asHost{facts: d.facts, sent: d.sent}
	p := &pipeline{
		facts: d.facts, host: h, strangers: strangers, out: d.queue,
		detector: detect.New(detect.Options{Rules: rules, Host: h, Strangers: strangers}),
	}
	return p, d.setScanner(p, c)
}

func (d *daemon) runPackets(p *packetPath) {
	for i, w := range p.ring.Workers() {
		d.capturing.start(fmt.Sprintf("capture worker %d", i), func(ctx context.Context) error {
			return w.Run(ctx, p.pipelines[i].handle)
		})
	}
	d.capturing.start("datagram services", func(ctx context.Context) error { return d.followServices(ctx, p) })
}

// setSockets points the trap sockets and their detector at the trap ports of c,
// and opens them when a mode of c is the first to need some.
func (d *daemon) setSockets(c *config.Config) error {
	ports := portsOf(c).sockets
	_, rules := d.rules(c)
	if s := d.sockets.Load(); s != nil {
		s.contacts.detector.SetRules(rules) // first: a new trap takes somebody at once
		err := s.traps.SetPorts(ports.tcp, ports.udp, []byte(c.PortBanner))
		d.sayTraps(s)
		return err
	}
	if !accepts(c.Modes) {
		return nil
	}
	traps, err := listen.Open(listen.Config{TCP: ports.tcp, UDP: ports.udp, Banner: []byte(c.PortBanner)})
	if err != nil {
		return fmt.Errorf("trap sockets: %w", err)
	}
	s := &socketPath{traps, &contacts{facts: d.facts, out: d.decider.queue, detector: detect.New(detect.Options{Rules: rules})}}
	d.onStop(traps.Close)
	d.sockets.Store(s)
	d.sayTraps(s)
	if d.capturing != nil {
		d.runSockets(s)
	}
	return nil
}

func (d *daemon) runSockets(s *socketPath) {
	d.capturing.start("trap sockets", func(ctx context.Context) error { return s.traps.Run(ctx, s.contacts.handle) })
}
