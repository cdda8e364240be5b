package app

import (
	"context"
	"fmt"
	"runtime"

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
	ports := portsOf(c).packets
	rules, _ := d.rules(c)
	if p := d.packets.Load(); p != nil {
		for _, one := range p.pipelines {
			one.detector.SetRules(rules)
		}
		return p.ring.SetPorts(ports.tcp, ports.udp)
	}
	if !looksAtPackets(c.Modes) || d.sensing(c) {
		return nil // or until an interface wants it
	}
	return d.openRing(c)
}

// openRing opens the packet ring.
func (d *daemon) openRing(c *config.Config) error {
	ports := portsOf(c).packets
	ring, err := afpacket.Open(afpacket.Config{TCP: ports.tcp, UDP: ports.udp, Workers: workers(), RingBytes: 8 << 20})
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	p := &packetPath{ring: ring}
	for range ring.Workers() {
		one, err := d.newPipeline(c)
		if err != nil {
			ring.Close()
			return err
		}
		p.pipelines = append(p.pipelines, one)
	}
	d.onStop(ring.Close)
	d.packets.Store(p)
	if d.capturing != nil {
		d.runPackets(p)
	}
	return nil
}

// newPipeline makes the packet path of one worker.
func (d *daemon) newPipeline(c *config.Config) (*pipeline, error) {
	lookup, err := host.NewLookup()
	if err != nil {
		return nil, fmt.Errorf("who listens: %w", err)
	}
	d.problems.set("lookup", lookup.Fallback())
	rules, _ := d.rules(c)
	h := &asHost{facts: d.facts, lookup: lookup}
	return &pipeline{
		facts: d.facts, host: h, out: d.queue, detector: detect.New(detect.Options{Rules: rules, Host: h}),
	}, nil
}

func (d *daemon) runPackets(p *packetPath) {
	for i, w := range p.ring.Workers() {
		d.capturing.start(fmt.Sprintf("capture worker %d", i), func(ctx context.Context) error {
			return w.Run(ctx, p.pipelines[i].handle)
		})
	}
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
