package app

import (
	"context"
	"errors"
	"fmt"
	"os"

	"portsentry/internal/config"
	"portsentry/internal/view"
	"portsentry/internal/view/cli"
)

// joining is a second start that waits to be taken in.
type joining struct {
	join  view.Join
	reply chan error
}

// Join is for control.Changes.
func (d *daemon) Join(ctx context.Context, _ view.Caller, j view.Join) (view.Modes, error) {
	waiting := joining{j, make(chan error, 1)}
	joins := d.joins
	if d.isStopping() {
		joins = nil // somebody may still be listening
	}
	select {
	case joins <- waiting:
		if err := <-waiting.reply; err != nil {
			return view.Modes{}, err
		}
	case <-d.stopping:
	case <-ctx.Done():
		return view.Modes{}, ctx.Err()
	}
	m := d.conf.Load().Modes
	return view.Modes{PID: os.Getpid(), TCP: modeName2x(m.TCP), UDP: modeName2x(m.UDP), Stopping: d.isStopping()}, nil
}

func (d *daemon) isStopping() bool {
	select {
	case <-d.stopping:
		return true
	default:
		return false
	}
}

func modeName2x(m config.Mode) string { return m.Word(config.Dialect2x, false) }

// takeIn puts the modes of a second start beside ours.
func (d *daemon) takeIn(ctx context.Context, j *joining) error {
	c := d.conf.Load()
	if d.o.Dialect != config.Dialect1x {
		return fmt.Errorf("already running (pid %d), and not with flags of 1.x", os.Getpid())
	}
	if j.join.Config != c.Path {
		return fmt.Errorf("already running (pid %d), with %s", os.Getpid(), c.Path)
	}
	modes := c.Modes
	for _, p := range []struct {
		name, want string
		mode       *config.Mode
	}{{"TCP", j.join.TCP, &modes.TCP}, {"UDP", j.join.UDP, &modes.UDP}} {
		switch {
		case p.want == "" || p.want == modeName2x(*p.mode):
		case *p.mode != config.Unwatched:
			return fmt.Errorf("already running (pid %d), and watches %s in %s mode; stop it first", os.Getpid(), p.name, modeName2x(*p.mode))
		default:
			for m := config.Connect; m <= config.Advanced; m++ {
				if modeName2x(m) == p.want {
					*p.mode = m
				}
			}
		}
	}
	if modes == c.Modes {
		return fmt.Errorf("already running (pid %d), and watches that", os.Getpid())
	}
	o := d.o
	o.Modes = modes
	next, _, err := o.load()
	if err == nil {
		err = d.apply(ctx, next)
	}
	if err != nil {
		return err
	}
	d.unconfirmed.reload() // the file has been read again for good
	d.o.Modes = modes
	d.sayJoined(next, c.Modes)
	return nil
}

// sayJoined says what the process of 1.x would have said that a second start
// stands for: what is watched beside the modes of before.
func (d *daemon) sayJoined(next *config.Config, before config.Modes) {
	added := *next
	if before.TCP != config.Unwatched {
		added.Modes.TCP = config.Unwatched
	}
	if before.UDP != config.Unwatched {
		added.Modes.UDP = config.Unwatched
	}
	d.log.Starting(d.o.Build.Version, d.o.Build.Commit)
	d.sayPorts(&added)
	d.log.Active()
}

// joinRunning hands the modes of o to a daemon that runs already, as the start
// scripts of 1.x expect it, who start one process for TCP and one for UDP.
func joinRunning(ctx context.Context, o *Options, c *config.Config) (joined bool, err error) {
	word := func(m config.Mode) string {
		if m == config.Unwatched {
			return ""
		}
		return modeName2x(m)
	}
	_, running, err := cli.Join(ctx, o.Socket, view.Join{Config: c.Path, TCP: word(c.Modes.TCP), UDP: word(c.Modes.UDP)})
	if err != nil || !running {
		var e *cli.Error
		if errors.As(err, &e) {
			err = errors.New(e.Error()) // its code is a command's
		}
		return false, err
	}
	return true, nil
}
