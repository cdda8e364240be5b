package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"portsentry/internal/capture/afpacket"
	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/host"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/respond/nft"
	"portsentry/internal/view"
	"portsentry/internal/view/control"
)

// open opens everything that needs privilege, files or the kernel, in the order
// of what depends on what.
func (d *daemon) open() error {
	if d.config.TCPPorts.Count()+d.config.UDPPorts.Count() == 0 {
		return errors.New("there is nothing to watch: neither TCP_PORTS nor UDP_PORTS is set, and this version has no advanced mode (ADVANCED_PORTS_*)")
	}
	var err error
	// First of all: where another daemon answers, its firewall table and its
	// files are not ours to touch.
	warnings := slog.New(slog.NewTextHandler(d.o.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if d.control, err = control.Listen(d.o.Socket, view.Group, d, warnings); err != nil {
		return err
	}
	w, err := host.NewWatcher()
	if err != nil {
		return fmt.Errorf("the facts of this machine: %w", err)
	}
	d.facts = &facts{watcher: w}
	d.log.InterfaceName = d.facts.interfaceName
	if d.peers, err = host.NewPeers(); err != nil {
		return fmt.Errorf("who is connected: %w", err)
	}
	if d.config.ResolveHost {
		d.problems.set("resolve", "RESOLVE_HOST=1: this version does not look up names; addresses are shown")
	}
	if d.config.Capture == config.CaptureXDP {
		d.problems.set("capture", "CAPTURE=xdp: this version has no XDP program; AF_PACKET is used")
	}
	d.ignore = openIgnore(d.config.IgnoreFile)
	d.problems.set("ignore", d.ignore.problem)
	if err := d.watchFiles(); err != nil {
		return err
	}

	d.record = newRecorder(d.log, &d.problems)
	if err := d.openFiles(); err != nil {
		return err
	}
	if err := d.openHelper(); err != nil {
		return err
	}
	trust := d.facts.trust(d.ignore.prefixes)
	if err := d.openTable(trust); err != nil {
		return err
	}
	d.openResponder()
	d.openDecider(trust)
	d.restore()
	return d.openCapture()
}

// native reports whether the configuration wants a native method to ban.
func (d *daemon) native() bool {
	return blocks(d.config) && len(d.config.BlockMethods) > 0
}

// provisional is how long a ban of the kernel's own lasts that nobody confirms.
// It never outlives the ban that it begins.
const provisional = 10 * time.Second

// leftovers reports whether an earlier run, with another configuration, left
// bans in the kernel. Log only, the table is opened all the same, without traps,
// so that they can be seen and lifted until they end. Next to commands of the
// owner it would ban by itself again: then only a sentence says so.
func (d *daemon) leftovers() bool {
	if !nft.Present() {
		return false
	}
	if blocks(d.config) {
		d.problems.set("leftovers", "bans that an earlier run made with nftables stand until they end, though BLOCK_METHOD is none now; nft delete table inet portsentry lifts them all")
		return false
	}
	return true
}

// openTable opens the firewall table. With BLOCK_METHOD="auto" a kernel without
// nftables is a problem to be shown, not a reason to watch nothing.
func (d *daemon) openTable(trust *judge.Trust) error {
	if !d.native() && !d.leftovers() {
		return nil
	}
	s := d.facts.watcher.Snapshot()
	t, err := nft.Open(nft.Options{
		TrapsTCP: d.config.TCPPorts, TrapsUDP: d.config.UDPPorts,
		EphemeralFirst: s.EphemeralFirst, EphemeralLast: s.EphemeralLast,
		BlockTCP: d.config.BlockTCP, BlockUDP: d.config.BlockUDP,
		KernelTraps: d.config.ScanTrigger <= 1,
		Provisional: min(provisional, d.config.BanTimeUnverified),
		LimitedOnly: d.config.BlockEvidence == config.EvidenceVerified,
		Spare:       trust.Prefixes(),
		Peers:       d.peers.List(),
	})
	if err != nil {
		if slices.Contains(d.config.BlockMethods, config.MethodAuto) || !d.native() {
			d.problems.set("nftables", fmt.Sprintf("no native ban: %v", err))
			return nil
		}
		return fmt.Errorf("BLOCK_METHOD: %w", err)
	}
	d.table = t
	d.onStop(d.closeTable) // a start that fails later leaves no trap rule behind
	return nil
}

func (d *daemon) openResponder() {
	var methods []respond.Method
	if d.table != nil {
		methods = append(methods, d.table)
	}
	var steps respond.Runner
	plan := respond.Plan{}
	if d.runner != nil {
		steps, plan = d.runner, respond.PlanFrom(d.config)
	}
	d.responder = respond.New(methods, steps, plan, d.record)
}

func (d *daemon) openDecider(trust *judge.Trust) {
	d.decider = &decider{
		queue:     make(chan detect.Sighting, queueLen),
		hits:      make(chan detect.Sighting, 1024),
		trust:     make(chan *judge.Trust, 1),
		last:      make(chan struct{}),
		responder: d.responder,
		record:    d.record,
		judge: judge.New(judge.Policy{
			BlockTCP: d.config.BlockTCP, BlockUDP: d.config.BlockUDP, Evidence: d.config.BlockEvidence,
			BanUnverified: d.config.BanTimeUnverified, BanVerified: max(d.config.BanTime, d.config.BanTimeUnverified),
		}, trust, asPeers{d.peers}, d.responder),
	}
	if d.table == nil && d.runner == nil {
		return
	}
	d.decider.freshen = func() {
		if err := d.peers.Fresh(); err != nil && !errors.Is(err, host.ErrStale) {
			d.problems.set("peers", fmt.Sprintf("who is connected could not be asked: %v", err))
		}
	}
	if d.table == nil {
		return
	}
	d.decider.revoke = func(ctx context.Context, a netip.Addr) {
		if err := d.table.Revoke(ctx, a); err != nil {
			d.problems.set("revoke", fmt.Sprintf("a provisional ban could not be taken back (it ends within 10 s): %v", err))
		}
	}
}

// workers is how many goroutines take packets in: half of the CPUs, for the
// other half has work of its own, and no more than a 10 Gbit/s flood needs.
func workers() int { return max(1, min(4, runtime.NumCPU()/2)) }

// openCapture opens the ring and one pipeline a worker.
func (d *daemon) openCapture() error {
	ring, err := afpacket.Open(afpacket.Config{
		TCP: d.config.TCPPorts, UDP: d.config.UDPPorts, Workers: workers(), RingBytes: 8 << 20,
	})
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	d.ring = ring
	d.onStop(ring.Close)
	tcp, udp := d.config.TCPPorts.Bitmap(), d.config.UDPPorts.Bitmap()
	for range ring.Workers() {
		lookup, err := host.NewLookup()
		if err != nil {
			return fmt.Errorf("who listens: %w", err)
		}
		d.problems.set("lookup", lookup.Fallback())
		d.pipelines = append(d.pipelines, &pipeline{
			facts: d.facts, out: d.decider.queue,
			detector: detect.New(detect.Options{
				Rules: detect.Rules{TCP: tcp, UDP: udp, Trigger: d.config.ScanTrigger, Window: d.config.ScanTriggerWindow},
				Host:  &asHost{facts: d.facts, lookup: lookup},
			}),
		})
	}
	return nil
}
