package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"portsentry/internal/capture/afpacket"
	"portsentry/internal/config"
	"portsentry/internal/host"
	"portsentry/internal/proc"
	"portsentry/internal/respond"
	"portsentry/internal/respond/nft"
	"portsentry/internal/store/textfile"
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
	if os.Getenv("GOMAXPROCS") == "" {
		// What a worker finds is decided on its own CPU a moment later: waking
		// another one for it costs more than the decision.
		runtime.GOMAXPROCS(workers())
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
	close(d.decider.last)
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
	left := 1 // once for what changed while we started
	again := time.NewTimer(lookAgain)
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
	err = errors.Join(err, d.table.AddPeers(c.Added), d.responder.Relax(ctx, c.Added))
	if err != nil {
		d.problems.set("peers", fmt.Sprintf("the firewall's list of connected peers is old: %v", err))
	}
}
