package main

import (
	"context"
	"slices"
	"time"

	"portsentry/test/harness"
)

// idle measures a daemon that nobody probes, and how soon it is ready.
func (b *bench) idle(ctx context.Context) error {
	err := b.with(ctx, banning(), func(_ *world, d *harness.Daemon) error {
		const rest = 5 * time.Second
		before, err := settle(ctx, d)
		if err != nil {
			return err
		}
		start := time.Now()
		if err := pause(ctx, rest); err != nil {
			return err
		}
		after, err := d.Usage()
		if err != nil {
			return err
		}
		perSecond := (after.CPU - before.CPU).Seconds() * 1000 / time.Since(start).Seconds()
		b.row("resident when idle, all processes", "at most 30 MiB", after.RSS <= 30<<20,
			"%.1f MiB in %d processes", mib(after.RSS), after.Processes)
		b.row("CPU when idle", "at most 0.5 ms per second", perSecond <= 0.5, "%.2f ms per second", perSecond)
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range []struct {
		what, tcp, udp string
		args           []string
	}{
		{"26 ports", trapPorts, "", nil},
		{"1 to 65535, stealth", "1-65535", "", nil},
		{"1 to 65535, connect, TCP and UDP", "1-65535", "1-65535", []string{"--connect"}},
	} {
		var took []time.Duration
		for range 3 {
			config := logOnly()
			config["TCP_PORTS"] = c.tcp
			if c.udp != "" {
				config["UDP_PORTS"] = c.udp
			}
			err := b.with(ctx, config, func(_ *world, d *harness.Daemon) error {
				took = append(took, d.ReadyAfter)
				return nil
			}, c.args...)
			if err != nil {
				return err
			}
		}
		median := middle(took)
		b.row("ready after start: "+c.what, "100 ms", median <= 100*time.Millisecond,
			"%v (median of %d)", median.Round(100*time.Microsecond), len(took))
	}
	return nil
}

func middle(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
