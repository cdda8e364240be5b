package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"portsentry/internal/capture/afpacket"
	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/host"
	"portsentry/internal/judge"
	"portsentry/internal/proc"
	"portsentry/internal/respond"
	"portsentry/internal/respond/nft"
	"portsentry/internal/store/textfile"
	"portsentry/internal/view"
	"portsentry/internal/view/control"
	"portsentry/internal/view/log"
)

// Options are what the command line says.
type Options struct {
	Build          Build
	ConfigPath     string // "": the default file, else the built-in default
	Socket         string
	Stdout, Stderr io.Writer
}

// daemon is the whole house, wired.
type daemon struct {
	o       Options
	config  *config.Config
	started time.Time

	facts  *facts
	peers  *host.Peers
	ignore *ignoreFile
	files  *host.FileWatch // the ignore and blocked files

	blockedBefore []textfile.BlockedEntry // hosts that an earlier run had blocked

	ring      *afpacket.Ring
	pipelines []*pipeline
	decider   *decider

	table     *nft.Table // nil: no native method
	responder *respond.Responder
	helper    *proc.Helper // nil: no command configured
	runner    *runner      // nil likewise
	record    *recorder
	log       *log.Writer
	control   *control.Server

	watching watching
	problems problems

	closers []func() error // run in reverse order at stop
}

// heapLimit is the soft limit of the Go heap. What the daemon keeps is bounded
// below it (65,536 bans take 35 MiB), so it only makes the collector run
// earlier when a flood of forged sources has filled the book.
const heapLimit = 64 << 20

// Run is the daemon: it opens what it needs in order, says what it watches,
// runs until ctx ends and stops in reverse order.
func Run(ctx context.Context, o Options) (err error) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heapLimit)
	}
	d := &daemon{o: o, started: time.Now()}
	d.config, err = loadConfig(o.ConfigPath)
	if err != nil {
		return err
	}
	d.log = log.New(o.Stdout, o.Stderr, d.config.LogFormat)
	d.log.Notice(o.Build.String())
	d.problems.out = o.Stderr
	defer func() {
		for i := len(d.closers) - 1; i >= 0; i-- {
			err = errors.Join(err, d.closers[i]())
		}
		d.log.Flush()
	}()
	if err := d.open(); err != nil {
		if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
			err = fmt.Errorf("%w; portsentry needs root: sudo portsentry", err)
		}
		return err
	}
	if err := proc.DropTo(proc.NetAdmin, proc.NetRaw, proc.SysPtrace, proc.DACOverride); err != nil {
		d.problems.set("capabilities", fmt.Sprintf("more privileges are kept than are needed: %v", err))
	}
	return d.run(ctx)
}

func (d *daemon) onStop(f func() error) { d.closers = append(d.closers, f) }

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
	if err := d.openCapture(); err != nil {
		return err
	}
	return nil
}

// native reports whether the configuration wants a native method to ban.
func (d *daemon) native() bool {
	return blocks(d.config) && d.config.BlockMethod != config.MethodNone
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
		PeerTimeout: host.PeerKept,
	})
	if err != nil {
		if d.config.BlockMethod == config.MethodAuto || !d.native() {
			d.problems.set("nftables", fmt.Sprintf("no native ban: %v", err))
			return nil
		}
		return fmt.Errorf("BLOCK_METHOD=%q: %w", d.config.BlockMethod, err)
	}
	d.table = t
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
		responder: d.responder,
		record:    d.record,
		judge: judge.New(judge.Policy{
			BlockTCP: d.config.BlockTCP, BlockUDP: d.config.BlockUDP, Evidence: d.config.BlockEvidence,
			BanUnverified: d.config.BanTimeUnverified, BanMax: max(d.config.BanTime, d.config.BanTimeUnverified),
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
	d.decider.revoke = func(ctx context.Context, s detect.Sighting) {
		if err := d.table.Revoke(ctx, s.Src); err != nil {
			d.problems.set("revoke", fmt.Sprintf("a provisional ban could not be taken back (it ends within 10 s): %v", err))
		}
	}
}

// openCapture opens the ring and one pipeline a worker.
func (d *daemon) openCapture() error {
	workers := max(1, min(4, runtime.NumCPU()/2))
	ring, err := afpacket.Open(afpacket.Config{
		TCP: d.config.TCPPorts, UDP: d.config.UDPPorts, Workers: workers, RingBytes: 8 << 20,
	})
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	d.ring = ring
	d.onStop(ring.Close)
	tcp, udp := traps(d.config)
	for range ring.Workers() {
		lookup, err := host.NewLookup()
		if err != nil {
			return fmt.Errorf("who listens: %w", err)
		}
		d.pipelines = append(d.pipelines, &pipeline{
			facts: d.facts, out: d.decider.queue,
			detector: detect.New(detect.Options{
				TCP: tcp, UDP: udp, Trigger: d.config.ScanTrigger, Window: d.config.ScanTriggerWindow,
				Host: &asHost{facts: d.facts, lookup: lookup},
			}),
		})
	}
	return nil
}

// run starts the layers, says what is watched, waits for the end and stops the
// layers in the order of the packet's way: first no more packets come in, then
// what is queued is decided, then everything else ends.
func (d *daemon) run(ctx context.Context) error {
	base := newTasks(ctx)
	base.start("host", d.facts.watcher.Run)
	base.start("files", d.files.Run)
	base.start("peers", d.peers.Run)
	base.start("bans", d.responder.Run)
	base.start("control socket", d.control.Run)
	if d.runner != nil {
		base.start("helper", func(ctx context.Context) error {
			return d.runner.run(ctx, func(why error) {
				d.problems.set("helper", fmt.Sprintf("no commands are run and hosts.deny is left alone: %v", why))
			})
		})
	}
	decide := newTasks(ctx)
	decide.start("decisions", d.decider.run)

	capturing := newTasks(ctx)
	capturing.start("housekeeping", d.keepHouse)
	for i, w := range d.ring.Workers() {
		capturing.start(fmt.Sprintf("capture worker %d", i), func(ctx context.Context) error {
			return w.Run(ctx, d.pipelines[i].handle)
		})
	}
	if d.table != nil {
		capturing.start("kernel reports", d.kernelReports)
	}

	select {
	case <-ctx.Done():
	case <-base.failed():
	case <-decide.failed():
	case <-capturing.failed():
	}

	err := capturing.stop()
	close(d.decider.queue)
	err = errors.Join(err, decide.drain(), d.closeTable(), base.stop(), d.stopHelper())
	d.record.flush()
	d.record.sync()
	d.log.Notice("Portsentry is shutting down")
	return err
}

// lookAgain is how long after an event the files that people edit are looked at.
const lookAgain = 300 * time.Millisecond

// keepHouse follows what changes on the machine: interfaces, addresses,
// gateways, the ignore file, who is connected.
func (d *daemon) keepHouse(ctx context.Context) error {
	// Two files are people's to edit. Nothing wakes up while nobody does; after
	// an event it is looked at a few times, for an editor may be half way.
	const looks = 4
	left := looks
	again := time.NewTimer(time.Second)
	defer again.Stop()
	d.follow()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.facts.watcher.Changed():
			d.follow()
		case c := <-d.peers.Changes():
			d.peersChanged(ctx, c)
		case <-d.files.Changed():
			left = looks
			again.Reset(lookAgain)
		case <-d.record.listed: // something for the blocked file
			left = max(left, 1)
			again.Reset(lookAgain)
		case <-again.C:
			d.liftEdited(ctx)
			if d.ignore.changed() {
				d.problems.set("ignore", d.ignore.problem)
				d.follow()
			}
			if left--; left > 0 {
				again.Reset(lookAgain)
			}
		}
	}
}

// follow brings the capture, the judge and the firewall in line with the
// machine as it is now.
func (d *daemon) follow() {
	d.watch()
	trust := d.facts.trust(d.ignore.prefixes)
	select {
	case <-d.decider.trust: // an older one that nobody has taken yet
	default:
	}
	d.decider.trust <- trust
	if d.table != nil {
		if err := d.table.SetSpare(trust.Prefixes()); err != nil {
			d.problems.set("spare", fmt.Sprintf("the firewall's list of whom to spare is old: %v", err))
		} else {
			d.problems.set("spare", "")
		}
	}
}

// peersChanged tells the firewall who is connected. Somebody whose connection
// was not known yet when forged packets in his name were judged gets his served
// ports back.
func (d *daemon) peersChanged(ctx context.Context, c host.PeerChange) {
	if d.table == nil {
		return
	}
	err := d.table.RemovePeers(c.Removed)
	err = errors.Join(err, d.table.AddPeers(c.Added, host.PeerKept), d.responder.Relax(ctx, c.Added))
	if err != nil {
		d.problems.set("peers", fmt.Sprintf("the firewall's list of connected peers is old: %v", err))
	}
}
