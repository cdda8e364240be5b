package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// stopTimeout is how long an ordered stop waits for the tasks of one layer.
const stopTimeout = 5 * time.Second

// tasks is a layer of the daemon: everything in it lives until the layer is
// stopped, and the first of them to fail brings the daemon down.
type tasks struct {
	ctx    context.Context
	cancel context.CancelFunc
	group  *errgroup.Group

	mu      sync.Mutex
	running []string
}

// newTasks makes a layer. Its context does not end with ctx: layers are
// stopped in order, by stop.
func newTasks(ctx context.Context) *tasks {
	c, cancel := context.WithCancel(context.WithoutCancel(ctx))
	group, c := errgroup.WithContext(c)
	return &tasks{ctx: c, cancel: cancel, group: group}
}

// start runs a task of the layer until the layer is stopped.
func (t *tasks) start(name string, run func(context.Context) error) {
	t.mu.Lock()
	t.running = append(t.running, name)
	t.mu.Unlock()
	t.group.Go(func() error {
		err := run(t.ctx)
		t.mu.Lock()
		if i := slices.Index(t.running, name); i >= 0 { // another of that name may have begun
			t.running = slices.Delete(t.running, i, i+1)
		}
		t.mu.Unlock()
		if err != nil && t.ctx.Err() == nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

// failed is closed when a task of the layer failed.
func (t *tasks) failed() <-chan struct{} { return t.ctx.Done() }

// drain waits for the layer to end by itself, and stops it when it does not.
func (t *tasks) drain() error {
	timer := time.AfterFunc(stopTimeout/2, t.cancel)
	defer timer.Stop()
	return t.wait()
}

// stop ends the layer and returns what went wrong first. Tasks that do not end
// in time are named.
func (t *tasks) stop() error {
	t.cancel()
	return t.wait()
}

func (t *tasks) wait() error {
	done := make(chan error, 1)
	go func() { done <- t.group.Wait() }()
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		t.mu.Lock()
		defer t.mu.Unlock()
		return fmt.Errorf("did not stop within %s: %s", stopTimeout, strings.Join(t.running, ", "))
	}
}
