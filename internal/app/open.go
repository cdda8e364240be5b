package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/host"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/view"
	"portsentry/internal/view/control"
)

// open opens everything that needs privilege, files or the kernel, in the order
// of what depends on what.
func (d *daemon) open() error {
	c := d.conf.Load()
	// First of all: where another daemon runs, its socket, its firewall table and
	// its files are not ours to touch. Of two starts at once the pid file knows one
	// to be the first; a socket that is about to listen looks left behind.
	err := d.writePID()
	if err != nil {
		return err
	}
	warnings := slog.New(slog.NewTextHandler(d.o.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if d.control, err = control.Listen(d.o.Socket, view.Group, control.Backend{State: d, Changes: d, Past: d, Health: d}, warnings); err != nil {
		return err
	}
	d.onStop(d.control.Close) // a start that fails later leaves no socket behind
	if err := d.setMetrics(c); err != nil {
		return err
	}
	d.onStop(d.closeMetrics)
	d.beginJournal(c)
	d.loading = beginSensor(c)
	d.onStop(d.closeLoaded)
	w, err := host.NewWatcher()
	if err != nil {
		return fmt.Errorf("the facts of this machine: %w", err)
	}
	d.facts = &facts{watcher: w}
	d.log.InterfaceName = d.facts.interfaceName
	if d.peers, err = host.NewPeers(); err != nil {
		return fmt.Errorf("who is connected: %w", err)
	}
	d.allowed = newAllowed()
	d.setIgnore(c)
	d.record = newRecorder(d.log, &d.problems, &d.feed)
	d.openNames(c)
	d.openHistory(c)
	listed := d.openBlocked(c)
	if err := d.openHelper(); err != nil {
		return err
	}
	trust := d.trust()
	d.openNAT()
	if slices.Contains(c.BlockMethods, config.MethodAuto) { // the table is wanted, whatever becomes of the program
		if err := d.setTable(context.Background(), c); err != nil {
			return err
		}
	}
	d.served = d.listening() // behind Landlock, the programs have no names; the kernel still looks through ours
	if err := d.openSensor(c); err != nil {
		return err
	}
	d.sayTable(c) // who bans without it is known now
	if err := d.openMethods(c); err != nil {
		return err
	}
	d.openResponder(c)
	d.openDecider(c, trust)
	d.restore(c, listed)
	d.sayRules(c)
	if err := d.setSensor(c); err != nil { // once more: there is a table now
		return err
	}
	if err := d.setPackets(c); err != nil {
		return err
	}
	return d.setSockets(c)
}

// openNames begins to look up names. What waits for one is recorded in time all
// the same.
func (d *daemon) openNames(c *config.Config) {
	d.names = host.NewNames(host.NamesOptions{})
	d.record.lookUp(d.names, c.ResolveHost)
}

func (d *daemon) openResponder(c *config.Config) {
	var err error
	if d.record.cut, err = openCutter(func(s string) { d.problems.set("conntrack", s) }); err != nil {
		d.problems.set("conntrack", err.Error())
	}
	d.onStop(d.record.cut.close)
	var steps respond.Runner
	plan := respond.Plan{}
	if d.runner != nil {
		steps, plan = d.runner, respond.PlanFrom(c)
	}
	d.responder = respond.New(d.methods(c), steps, plan, d.record)
	d.responder.SetMemory(c.DatabaseKeep)
	d.record.sized = func() { d.heap.follow(d.responder.Size()) }
}

func (d *daemon) openDecider(c *config.Config, trust *judge.Trust) {
	d.decider = &decider{
		queue:     d.queue,
		hits:      make(chan detect.Sighting, 1024),
		do:        make(chan func()),
		last:      make(chan struct{}),
		ended:     make(chan struct{}),
		responder: d.responder,
		record:    d.record,
		judge:     judge.New(d.policy(c), trust, asPeers{d.peers}, d.responder),
		revoke:    d.revoke,
		answers:   blocks(c),
		ask:       d.allowed.names.Ask,
		settled:   make(chan struct{}, 1),
		flood:     flood{over: make(chan struct{}, 1)},
		freshen: func() {
			said := ""
			if err := d.peers.Fresh(); err != nil && !errors.Is(err, host.ErrStale) {
				said = fmt.Sprintf("who is connected could not be asked: %v", err)
			}
			d.problems.set("asked", said)
		},
	}
}

// policy is what the configuration says about answers.
func (d *daemon) policy(c *config.Config) judge.Policy {
	return judge.Policy{
		BlockTCP: c.BlockTCP, BlockUDP: c.BlockUDP, Evidence: c.BlockEvidence,
		BanUnverified: c.BanTimeUnverified, BanVerified: max(c.BanTime, c.BanTimeUnverified),
		BanMost: max(c.BanTimeMax, c.BanTime, c.BanTimeUnverified), BanFactor: c.BanTimeFactor,
		ShowOwn: d.o.ShowOwn,
	}
}
