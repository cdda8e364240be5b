package app

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"portsentry/internal/config"
	"portsentry/internal/view"
	"portsentry/internal/view/metrics"
)

// setMetrics has the metrics where c wants them. Where that cannot be, they stay
// where they are.
func (d *daemon) setMetrics(c *config.Config) error {
	old := d.metrics.Load()
	switch {
	case old == nil && c.MetricsListen == "", old != nil && old.address == c.MetricsListen:
		return nil
	case c.MetricsListen == "":
		d.metrics.Store(nil)
		return old.server.Close()
	}
	listen := func(address string) (*endpoint, error) {
		s, err := metrics.Listen(address, view.Group, d)
		return &endpoint{address, s}, err
	}
	next, err := listen(c.MetricsListen)
	if old != nil && errors.Is(err, syscall.EADDRINUSE) {
		// By ourselves, it may be: the same port of another address.
		if err = old.server.Close(); err != nil {
			return err
		}
		if next, err = listen(c.MetricsListen); err != nil {
			again, aerr := listen(old.address)
			if aerr != nil {
				d.metrics.Store(nil)
				return errors.Join(err, aerr)
			}
			d.metrics.Store(again)
			d.runMetrics(again)
			return err
		}
	}
	if err != nil {
		return err
	}
	d.metrics.Store(next)
	d.runMetrics(next)
	if old != nil {
		return old.server.Close()
	}
	return nil
}

// endpoint is where metrics are to be had.
type endpoint struct {
	address string
	server  *metrics.Server
}

// runMetrics answers at e as soon as tasks run. An endpoint that fails is a
// problem, and no reason to watch nothing any more.
func (d *daemon) runMetrics(e *endpoint) {
	if d.base == nil { // run does it
		return
	}
	d.base.start("metrics", func(ctx context.Context) error {
		said := ""
		if err := e.server.Run(ctx); err != nil {
			said = fmt.Sprintf("no metrics are to be had: %v", err)
		}
		d.problems.set("metrics", said)
		return nil
	})
}

func (d *daemon) closeMetrics() error {
	if e := d.metrics.Swap(nil); e != nil {
		return e.server.Close()
	}
	return nil
}
