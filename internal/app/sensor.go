package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/capture/xdp"
	"portsentry/internal/config"
	"portsentry/internal/host"
	"portsentry/internal/respond"
	banxdp "portsentry/internal/respond/xdp"
)

// sensor is the XDP program with what feeds it and what reads it.
type sensor struct {
	*bpf.Sensor
	source    *xdp.Source
	method    *banxdp.Method
	pipelines []*pipeline // one a worker
	peers     *bpf.Peers
	folder    string // where it is pinned; "": nowhere
}

// loaded is what loading the XDP program came to.
type loaded struct {
	sensor *sensor // nil: not wanted, or err
	err    error

	partly, fleeting string // what does not work in it, in words
}

// xdpBans is how many bans the program has room for: twice as many as there can be
// without proof. The kernel takes 16 bytes at once for each that might come, so the
// whole of the book would cost 16 MiB; what finds no room is nftables' alone.
const xdpBans = 2 * respond.MaxUnproved

// beginSensor begins to load what c, or a ban of before, wants of the XDP
// program. The kernel takes its time to look through it, so other things go on
// meanwhile.
func beginSensor(c *config.Config) <-chan loaded {
	done := make(chan loaded, 1)
	go func() { done <- loadSensor(c) }()
	return done
}

func loadSensor(c *config.Config) (l loaded) {
	folder, err := bpf.Folder()
	wanted := wantsXDP(c)
	if !wanted && (err != nil || !bpf.Remains(folder)) {
		return loaded{}
	}
	prepared := bpf.Prepare()
	if err == nil {
		err = bpf.Mount()
	}
	if err != nil {
		folder = ""
		l.fleeting = fmt.Sprintf("bans of the XDP program end with this process: %v", err)
	}
	s := new(sensor)
	var unfollowed error
	var following sync.WaitGroup
	if s.peers, err = bpf.NewPeers(); err == nil {
		following.Go(func() { unfollowed = s.peers.Follow() })
	}
	// To ask is to have the kernel load the module, if it is one. The program can
	// only call what is there when it is loaded.
	if c, err := host.NewConntrack(); err == nil {
		c.Close()
	}
	if err == nil {
		s.Sensor, err = bpf.OpenSensor(bpf.SensorOptions{Workers: workers(), Bans: xdpBans, Folder: folder, Peers: s.peers, Prepared: prepared})
	}
	if err == nil {
		s.source, err = xdp.Open(s.Sensor)
	}
	following.Wait()
	switch {
	case unfollowed != nil:
		l.partly = fmt.Sprintf("who opens a connection is known to the XDP program a moment later only, and every packet of the banned is looked up: %v", unfollowed)
	case err == nil && s.peers.Partial():
		l.partly = "who opens a connection to a service outside this container is known to the XDP program a moment later only"
	}
	if errors.Is(err, bpf.ErrInUse) && !wanted {
		return loaded{err: s.close()} // nothing of ours is left there
	}
	if err != nil {
		l.err = errors.Join(err, s.close())
		return l
	}
	s.folder, l.sensor = folder, s
	return l
}

// openSensor takes the program in. Where the kernel cannot do it, or we may not,
// that is said and the next best way is taken.
func (d *daemon) openSensor(c *config.Config) error {
	l := <-d.loading
	d.loading = nil
	s := l.sensor
	if l.err != nil {
		d.problems.set("xdp", withoutXDP(c, l.err))
	}
	if s == nil {
		return nil
	}
	d.problems.set("kernel peers", l.partly)
	d.problems.set("lasting", l.fleeting)
	d.sensor.Store(s)
	d.onStop(d.closeSensor)
	for range s.source.Workers() {
		p, err := d.newPipeline(c)
		if err != nil {
			return err
		}
		s.pipelines = append(s.pipelines, p)
	}
	if !s.Tracks() {
		d.problems.set("tracking", "the XDP program cannot ask connection tracking (which takes Linux 6.1 and nf_conntrack): by itself it bans for SYNs alone")
	}
	s.method = banxdp.New(s.Sensor)
	return d.setSensor(c)
}

// withoutXDP says that there is no XDP, why, and what is done instead.
func withoutXDP(c *config.Config, why error) string {
	return fmt.Sprintf("no XDP: %v; %s", why, instead(c))
}

// instead is what is done where there is no XDP.
func instead(c *config.Config) string {
	if drops(c) {
		return "AF_PACKET reads the packets, nftables bans"
	}
	return "AF_PACKET reads the packets"
}

// close frees what there is of s.
func (s *sensor) close() error {
	var errs []error
	if s.source != nil {
		errs = append(errs, s.source.Close())
	}
	if s.Sensor != nil {
		errs = append(errs, s.Sensor.Close())
	}
	if s.peers != nil {
		errs = append(errs, s.peers.Close())
	}
	return errors.Join(errs...)
}

// runSensor starts what lives as long as packets come in.
func (d *daemon) runSensor(s *sensor) {
	for i, w := range s.source.Workers() {
		d.capturing.start(fmt.Sprintf("XDP worker %d", i), func(ctx context.Context) error {
			return w.Run(ctx, s.pipelines[i].event, s.pipelines[i].handle)
		})
	}
	d.capturing.start("connections", func(ctx context.Context) error { return s.peers.Run(ctx, d.connected) })
	d.capturing.start("XDP bans", s.method.Run)
	d.capturing.start("XDP program", func(ctx context.Context) error { return d.keepSensor(ctx, s) })
}

const (
	rotation  = 10 * time.Minute // how long a key of the challenge is used
	lookPause = 5 * time.Second  // how often that is looked at
)

// keepSensor clears away what others have left, and looks after the challenge, of
// which nobody tells.
func (d *daemon) keepSensor(ctx context.Context, s *sensor) error {
	if s.folder != "" {
		if err := bpf.ClearAway(s.folder); err != nil {
			d.problems.set("clear away", fmt.Sprintf("what network namespaces that are gone have left under /sys/fs/bpf stays there: %v", err))
		}
	}
	tick := time.NewTicker(lookPause)
	defer tick.Stop()
	rotated := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if d.conf.Load().VerifySource && now.Sub(rotated) >= rotation {
				rotated = now
				d.sayChallenge(s.RotateKeys())
				continue
			}
			d.sayChallenge(d.challenged(s))
		}
	}
}

// keepPinned pins again what somebody has removed: without that, bans would end
// with this process.
func (d *daemon) keepPinned(s *sensor) {
	missing, err := s.PinAgain()
	said := ""
	if err != nil {
		said = fmt.Sprintf("somebody removed what the XDP program has under /sys/fs/bpf, so its bans end with this process: %v", err)
	}
	d.problems.set("pins", said)
	if missing && err == nil {
		d.log.Notice("adminalert: somebody removed what the XDP program has under /sys/fs/bpf; it was put there again")
	}
}

// challenged says what keeps the challenge from being made.
func (d *daemon) challenged(s *sensor) error {
	if !d.conf.Load().VerifySource {
		return nil
	}
	until, err := s.VerifyPaused()
	if err == nil && !until.IsZero() {
		err = errPaused
	}
	return err
}

var errPaused = errors.New("nobody is challenged for a minute: more than 1,000 ACKs a second brought numbers that are not ours")

func (d *daemon) sayChallenge(err error) {
	said := ""
	if err != nil {
		said = fmt.Sprintf("VERIFY_SOURCE: %v", err)
	}
	d.problems.set("challenge", said)
}

// closeSensor takes the program off the interfaces, and leaves its bans to the
// next run. Where it alone keeps somebody out, it stays for that, and does nothing
// else.
func (d *daemon) closeSensor() error {
	alone := d.dropsAlone()
	s := d.sensor.Swap(nil)
	if s == nil {
		return nil
	}
	if alone && s.keepsOut() && len(s.Attached()) > 0 {
		d.log.Notice("adminalert: the XDP program stays on the interfaces until its bans have ended: nothing else keeps those hosts out (to end it now: rm -r /sys/fs/bpf/portsentry)")
	}
	return s.end(alone)
}

// dropsAlone reports whether the program may keep somebody out whom the firewall
// table does not: BLOCK_METHOD may have been another when he was banned.
func (d *daemon) dropsAlone() bool {
	if d.responder == nil || d.standby.on.Load() || !d.tableBans(d.conf.Load()) {
		return true
	}
	return d.responder.HeldWithout(string(config.MethodXDP), string(config.MethodNftables)) > 0
}

// closeLoaded is for a start that fails before the program is taken in.
func (d *daemon) closeLoaded() error {
	if d.loading == nil {
		return nil
	}
	if l := <-d.loading; l.sensor != nil {
		return l.sensor.end(true)
	}
	return nil
}

// end closes s. alone: nothing else keeps out whom it keeps out.
func (s *sensor) end(alone bool) error {
	switch {
	case !s.keepsOut():
		return s.close()
	case alone:
		return s.leave((*bpf.Sensor).Leave)
	}
	return s.leave((*bpf.Sensor).Rest)
}

// keepsOut reports whether a ban of the program's is in force.
func (s *sensor) keepsOut() bool {
	keeps := false
	err := s.EachBan(func(b *bpf.Ban) bool {
		keeps = b.Strength != bpf.Pardon && (b.Until.IsZero() || b.Until.After(time.Now()))
		return !keeps
	})
	return keeps || err != nil
}

// leave leaves the bans, and what else stays with them, to the next run.
func (s *sensor) leave(stay func(*bpf.Sensor) error) error {
	err := errors.Join(s.source.Close(), stay(s.Sensor))
	s.source, s.Sensor = nil, nil
	return errors.Join(err, s.close())
}
