package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/internal/proc"
)

// selfDaemon is the daemon of the self-test.
type selfDaemon struct {
	socket string
	errors string // file of its standard error
	tasks  *tasks
	over   chan struct{} // closed when it has ended
	end    error         // how, once over is closed

	mu     sync.Mutex
	active bool
	events map[netip.Addr][]selfEvent
}

// selfEvent is what the test reads of an event (docs/json.md).
type selfEvent struct {
	Event      string     `json:"event"`
	Text       string     `json:"text"`
	Source     netip.Addr `json:"source"`
	Kind       string     `json:"kind"`
	Type       string     `json:"type"`
	Direction  string     `json:"direction"`
	Evidence   string     `json:"evidence"`
	Spared     string     `json:"spared"`
	IPOptions  bool       `json:"ip_options"`
	Fragmented bool       `json:"fragmented"`
}

const (
	readyTime  = 10 * time.Second // for the daemon to say that it is active
	activeText = "Portsentry is now active and listening."
	maxEvents  = 64 // kept of one address
)

// startSelf runs this program in ns with the configuration in dir, and returns
// when it watches. What it mounts and pins is its own.
func startSelf(ctx context.Context, ns *pktgen.NS, dir string) (d *selfDaemon, err error) {
	d = &selfDaemon{
		socket: filepath.Join(dir, selfSocket), errors: filepath.Join(dir, "stderr"),
		tasks: newTasks(ctx), over: make(chan struct{}), events: make(map[netip.Addr][]selfEvent),
	}
	errs, err := os.Create(d.errors)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		errs.Close()
		return nil, err
	}
	args := []string{"--configfile", filepath.Join(dir, selfConf), "--socket", d.socket}
	d.tasks.start("portsentry", func(ctx context.Context) error {
		defer close(d.over)
		d.end = ns.DoApart(func() error { return proc.RunAgain(ctx, args, w, errs) })
		w.Close()
		errs.Close()
		return nil
	})
	d.tasks.start("its log", func(context.Context) error {
		defer r.Close()
		return d.read(r)
	})
	ready, err := until(ctx, readyTime, func() (bool, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.active, d.ended()
	})
	if err == nil && !ready {
		err = fmt.Errorf("portsentry did not start to watch within %v%s", readyTime, d.said())
	}
	if err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

// read takes the events in, until the daemon ends.
func (d *selfDaemon) read(r *os.File) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e selfEvent
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // nothing that docs/json.md knows
		}
		d.mu.Lock()
		switch {
		case e.Event == "notice":
			d.active = d.active || e.Text == activeText
		case e.Source.IsValid() && len(d.events[e.Source]) < maxEvents:
			d.events[e.Source] = append(d.events[e.Source], e)
		}
		d.mu.Unlock()
	}
	return lines.Err()
}

// about are the events so far that are about a.
func (d *selfDaemon) about(a netip.Addr) []selfEvent {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]selfEvent(nil), d.events[a]...)
}

// ended says how the daemon ended before its time; nil while it runs.
func (d *selfDaemon) ended() error {
	select {
	case <-d.over:
	default:
		return nil
	}
	how := "by itself"
	if d.end != nil {
		how = d.end.Error()
	}
	return fmt.Errorf("portsentry ended (%s)%s", how, d.said())
}

// said is what the daemon wrote to its standard error.
func (d *selfDaemon) said() string {
	const most = 2000
	b, err := os.ReadFile(d.errors)
	b = bytes.TrimSpace(b)
	if err != nil || len(b) == 0 {
		return ""
	}
	return ":\n" + string(b[max(0, len(b)-most):])
}

// stop ends the daemon.
func (d *selfDaemon) stop() error {
	err := d.tasks.stop()
	select {
	case <-d.over:
		return err
	default:
		return errors.Join(err, errors.New("the daemon of the test still runs"))
	}
}
