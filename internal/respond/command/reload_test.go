package command

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/respond"
)

// TestReload: what begins after a reload is as the new configuration says, what
// runs goes on; a configuration that cannot be read changes nothing.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	gate, log, started := filepath.Join(dir, "gate"), filepath.Join(dir, "log"), filepath.Join(dir, "started")
	var now atomic.Pointer[Templates]
	now.Store(&Templates{RunCmd: "echo > " + started + "; while [ ! -e " + gate + " ]; do sleep 0.02; done; echo old >> " + log})
	bad := errors.New("portsentry.conf:3: KILL_RUN_CMD: \x1b[31mred")
	conn := serve(t, Templates{}, nil, func(s *server) {
		s.load = func() (Templates, error) {
			if t := now.Load(); t != nil {
				return *t, nil
			}
			return Templates{}, bad
		}
	})
	c := client(t, conn, stealth, config.Dialect2x)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()

	first := make(chan error, 1)
	c.Submit(order(host, respond.StepCommand), func(a []respond.Action) { first <- a[0].Err })
	eventually(t, "the command runs", func() bool { _, err := os.Stat(started); return err == nil })

	now.Store(&Templates{RunCmd: "echo new >> " + log})
	if err := c.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	other := host.Next()
	if a := do(t, c, order(other, respond.StepCommand)); a[0].Err != nil || a[0].Text != "echo new >> "+log {
		t.Errorf("%+v", a)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
	if got := read(t, log); got != "new\nold\n" {
		t.Errorf("%q", got)
	}

	now.Store(nil)
	err := c.Reload(ctx)
	if err == nil || !strings.Contains(err.Error(), "keeps the configuration it had: portsentry.conf:3") || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%v", err)
	}
	if a := do(t, c, order(other, respond.StepCommand)); a[0].Err != nil {
		t.Errorf("after a reload that failed: %+v", a)
	}
}

// TestServeNeedsAConfiguration: without one there is nothing to carry out.
func TestServeNeedsAConfiguration(t *testing.T) {
	ours, theirs := pair(t)
	defer ours.Close()
	defer theirs.Close()
	missing := errors.New("no such file")
	if err := Serve(t.Context(), theirs, func() (Templates, error) { return Templates{}, missing }, nil, new(Pace)); !errors.Is(err, missing) {
		t.Error(err)
	}
}

// TestReloadWithoutHelper: nobody waits for an answer that will not come.
func TestReloadWithoutHelper(t *testing.T) {
	ours, theirs := pair(t)
	defer ours.Close()
	c := NewClient(ours, stealth, config.Dialect2x)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Reload(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("before Run: %v", err)
	}
	ran := make(chan error, 1)
	go func() { ran <- c.Run(context.Background()) }()
	asked := make(chan error, 1)
	go func() { asked <- c.Reload(context.Background()) }()
	theirs.SetReadDeadline(time.Now().Add(deadline))
	if n, err := theirs.Read(make([]byte, requestSize)); n != reloadSize || err != nil {
		t.Fatal(n, err)
	}
	theirs.Close()
	for _, ch := range []chan error{asked, ran} {
		select {
		case err := <-ch:
			if !errors.Is(err, ErrHelperGone) {
				t.Error(err)
			}
		case <-time.After(deadline):
			t.Fatal("still waiting")
		}
	}
	if err := c.Reload(context.Background()); !errors.Is(err, ErrHelperGone) {
		t.Errorf("afterwards: %v", err)
	}
}
