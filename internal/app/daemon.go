package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/host"
	"portsentry/internal/proc"
	"portsentry/internal/respond"
	"portsentry/internal/respond/nft"
	"portsentry/internal/store/sqlite"
	"portsentry/internal/view/control"
	"portsentry/internal/view/log"
)

// daemon is the whole house, wired.
type daemon struct {
	o        Options
	conf     atomic.Pointer[config.Config] // in force
	started  time.Time
	hangup   chan os.Signal // SIGHUP: read the configuration again
	joins    chan joining
	errands  chan func(context.Context) // what keepHouse does for others
	stopping chan struct{}              // closed when nothing more is taken in

	unconfirmed unconfirmed // changes that may be taken back
	byHand      atomic.Bool // a person has asked for a ban

	onTerminal bool // standard output was a terminal when we started

	facts   *facts
	peers   *host.Peers
	names   *host.Names
	ignore  ignoreFiles
	allowed allowed
	files   *host.FileWatch // files that people edit

	queue   *queue                     // between the packet path and the decider
	loading <-chan loaded              // the XDP program; nil once it is sensor
	sensor  atomic.Pointer[sensor]     // nil: no XDP
	reads   atomic.Bool                // packets are read by XDP, and go on to be until the ring is there
	packets atomic.Pointer[packetPath] // nil: AF_PACKET is not needed
	sockets atomic.Pointer[socketPath] // nil: none is watched by trap sockets
	decider *decider

	table     atomic.Pointer[nft.Table] // nil: no nftables
	noTable   error                     // why there is none although there should be
	others    otherMethods
	responder *respond.Responder
	helper    *proc.Helper // nil: no command configured
	runner    *runner      // nil likewise
	record    *recorder
	opening   <-chan openedJournal // the database; empty once it is journal
	journal   *sqlite.Journal
	feed      feed // for those who follow what happens
	log       *log.Writer
	control   *control.Server
	metrics   atomic.Pointer[endpoint] // nil: nobody may ask for them

	watching watching
	problems problems
	watchdog watchdog
	standby  standby
	nat      *host.NAT // nil: it cannot be known
	heap     heapRoom

	asking  sync.RWMutex // held, for reading, by who asks over the control socket
	closing bool         // guarded by asking

	sandbox *proc.Sandbox // what we may still do
	lacks   []string      // what is missing in it
	served  string        // who listens where, at the start

	settle    func()                     // once the start is over
	full      atomic.Pointer[fullDetect] // nil: nobody has asked for it
	base      *tasks
	capturing *tasks
	closers   []func() error // run in reverse order at stop
}

// Run is the daemon: it opens what it needs in order, says what it watches,
// runs until ctx ends and stops in reverse order.
func Run(ctx context.Context, o Options) (err error) {
	d := &daemon{o: o, settle: hurry(), started: time.Now(), queue: newQueue(), hangup: make(chan os.Signal, 1), joins: make(chan joining), errands: make(chan func(context.Context)), stopping: make(chan struct{}), standby: standby{look: make(chan struct{}, 1)}, onTerminal: isTerminal()}
	d.heap.begin()
	signal.Notify(d.hangup, syscall.SIGHUP)
	defer signal.Stop(d.hangup)
	c, from, err := o.load()
	if err != nil {
		return err
	}
	d.conf.Store(c)
	d.openLog(from)
	defer func() {
		for i := len(d.closers) - 1; i >= 0; i-- {
			err = errors.Join(err, d.closers[i]())
		}
		err = errors.Join(err, d.log.Close())
	}()
	if err := d.open(); err != nil {
		if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
			err = fmt.Errorf("%w; portsentry needs root: sudo portsentry", err)
		}
		if o.Detach { // said where the log is, which is where it is looked for, and by that on standard error
			d.log.Error("adminalert: " + err.Error())
			return &exitError{code: o.failure()}
		}
		return err
	}
	if os.Getenv("GOMAXPROCS") == "" {
		// What a worker finds is decided on its own CPU a moment later: waking
		// another one for it costs more than the decision.
		runtime.GOMAXPROCS(workers())
	}
	// It saves wake-ups and is no promise: what we pace is paced in 10 ms.
	_ = proc.LazyTimers(time.Millisecond)
	d.enterSandbox()
	return d.run(ctx)
}

func (d *daemon) onStop(f func() error) { d.closers = append(d.closers, f) }

// run starts the layers, says what is watched, waits for the end and stops the
// layers in the order of the packet's way: first no more packets come in, then
// what is queued is decided, then everything else ends.
func (d *daemon) run(ctx context.Context) error {
	base := newTasks(ctx)
	d.base = base
	base.start("host", d.facts.watcher.Run)
	base.start("peers", d.peers.Run)
	base.start("bans", d.responder.Run)
	d.runJournal()
	if d.record.cut != nil {
		base.start("connections of banned sources", d.record.cut.run)
	}
	base.start("control socket", d.control.Run)
	if e := d.metrics.Load(); e != nil {
		d.runMetrics(e)
	}
	d.followFiles()
	base.start("history and blocked file", d.writeFiles)
	base.start("names", d.names.Run)
	base.start("allowed names", d.allowed.names.Run)
	base.start("allowed networks", d.allowed.geo.Run)
	if d.runner != nil {
		base.start("helper", func(ctx context.Context) error {
			return d.runner.run(ctx, func(why error) {
				d.problems.set("helper", withoutHelper(why))
			})
		})
	}
	decide := newTasks(ctx)
	decide.start("decisions", d.decider.run)
	if every := proc.WatchdogEvery(); every > 0 {
		base.start("service watchdog", d.beat(every, func() { d.notify("WATCHDOG=1") }))
	}

	capturing := newTasks(ctx)
	d.capturing = capturing
	if s := d.sockets.Load(); s != nil {
		d.runSockets(s)
	}
	if s := d.sensor.Load(); s != nil {
		d.runSensor(s)
	}
	if p := d.packets.Load(); p != nil {
		d.runPackets(p)
	}
	if t := d.table.Load(); t != nil {
		d.hearTable(t)
	}
	if d.nat != nil {
		capturing.start("NAT", d.nat.Run)
	}
	if f := d.full.Load(); f != nil { // before a reload can make one
		d.runFull(f)
	}
	capturing.start("bans in the kernel", d.watchBans)
	capturing.start("housekeeping", d.keepHouse)

	select {
	case <-ctx.Done():
	case <-base.failed():
	case <-decide.failed():
	case <-capturing.failed():
	}

	close(d.stopping)
	proc.SayStopping()
	d.notify("STOPPING=1")
	d.unconfirmed.end()
	err := errors.Join(capturing.stop(), d.closeFullDetect())
	close(d.decider.last)
	err = errors.Join(err, decide.drain())
	d.endAsking()
	err = errors.Join(err, d.closeTable(), d.closeSensor(), base.stop(), d.stopHelper())
	d.record.close()
	d.log.Stopping()
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
	look := func(times int) {
		if left == 0 { // else it is on: what happens all the time must not put it off
			again.Reset(lookAgain)
		}
		left = max(left, times)
	}
	d.follow(ctx)
	d.settle()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.hangup:
			if d.onTerminal && !isTerminal() {
				return errHungUp
			}
			d.hungUp(ctx)
		case do := <-d.errands:
			do(ctx)
		case <-d.decider.flood.over:
			debug.FreeOSMemory() // what it took is not needed any more
		case j := <-d.joins:
			j.reply <- d.takeIn(ctx, &j)
		case <-d.facts.watcher.Changed():
			d.follow(ctx)
		case <-d.natChanged():
			d.follow(ctx)
		case <-d.programFull():
			d.standBy(ctx)
		case <-d.standby.look:
			d.standBy(ctx)
		case c := <-d.peers.Changes():
			d.peersChanged(ctx, c)
		case <-d.allowed.names.Changed():
			d.namesAnswered(ctx)
		case <-d.allowed.geo.Changed():
			d.follow(ctx)
			d.sayAllowed()
		case <-d.files.Changed():
			look(looks)
		case <-d.record.listed: // something for the blocked file
			look(1)
		case <-again.C:
			touch(d.record.looking)
			if d.ignore.changed() {
				d.problems.set("ignore", d.ignore.problem())
				d.setAllowed(d.conf.Load())
				d.follow(ctx)
			}
			d.allowed.geo.Look()
			if left--; left > 0 {
				again.Reset(lookAgain)
			}
		}
	}
}

// follow brings the capture, the judge, the firewall and the bans in line with
// the machine as it is now.
func (d *daemon) follow(ctx context.Context) {
	trust := d.trust()
	d.tellSensor(d.conf.Load(), append(trust.Prefixes(), trust.Martians()...)) // first: then it looks at packets of more interfaces
	d.watch()
	d.decider.set(func() { d.decider.judge.SetTrust(trust) })
	d.liftSpared(ctx, trust)
	if t := d.table.Load(); t != nil {
		if err := t.SetSpare(trust.Prefixes()); err != nil {
			d.problems.set("spare", fmt.Sprintf("the firewall's list of whom to spare is old: %v", err))
		} else {
			d.problems.set("spare", "")
		}
	}
	d.standBy(ctx)
}

// peersChanged tells the firewall who is connected. Somebody whose connection
// was not known yet when forged packets in his name were judged gets his served
// ports back.
func (d *daemon) peersChanged(ctx context.Context, c host.PeerChange) {
	var err error
	if s := d.sensor.Load(); s != nil {
		err = errors.Join(s.peers.Remove(c.Removed), s.peers.Add(c.Added))
	}
	if t := d.table.Load(); t != nil {
		err = errors.Join(err, t.RemovePeers(c.Removed), t.AddPeers(c.Added))
	}
	said := ""
	if err = errors.Join(err, d.responder.Relax(ctx, c.Added)); err != nil {
		said = fmt.Sprintf("what is known about connected peers is old: %v", err)
	}
	d.problems.set("peers", said)
}
