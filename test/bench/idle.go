package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"portsentry/test/harness"
)

// idle measures a daemon that nobody probes, and how soon it is ready.
func (b *bench) idle(ctx context.Context) error {
	if err := b.each(func(by way) error { return b.idleOf(ctx, by) }); err != nil {
		return err
	}
	for _, c := range []struct {
		what, tcp, udp string
		connect        bool // captures nothing
	}{
		{"26 ports", trapPorts, "", false},
		{"1 to 65535, stealth", "1-65535", "", false},
		{"1 to 65535, connect, TCP and UDP", "1-65535", "1-65535", true},
	} {
		if c.connect {
			if err := b.ready(ctx, way{}, c.what, c.tcp, c.udp, "--connect"); err != nil {
				return err
			}
			continue
		}
		if err := b.each(func(by way) error { return b.ready(ctx, by, c.what, c.tcp, c.udp) }); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) idleOf(ctx context.Context, by way) error {
	return b.with(ctx, by.banning(), func(_ *world, d *harness.Daemon) error {
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
		b.row(by.name, "memory when idle, all processes", "at most 30 MiB", after.Memory() <= 30<<20,
			"%s in %d processes", memoryOf(after), after.Processes)
		b.row(by.name, "CPU when idle", "at most 0.5 ms per second", perSecond <= 0.5, "%.2f ms per second", perSecond)
		return nil
	})
}

// ready measures from exec to the ready line. udp is empty for the usual ports.
func (b *bench) ready(ctx context.Context, by way, what, tcp, udp string, args ...string) error {
	var took []time.Duration
	for range 9 {
		config := by.logOnly()
		config["TCP_PORTS"] = tcp
		if udp != "" {
			config["UDP_PORTS"] = udp
		}
		err := b.with(ctx, config, func(_ *world, d *harness.Daemon) error {
			took = append(took, d.ReadyAfter)
			return nil
		}, args...)
		if err != nil {
			return err
		}
	}
	median := middle(took)
	b.row(by.name, "ready after start: "+what, "100 ms", median <= 100*time.Millisecond,
		"%v (median of %d)", median.Round(100*time.Microsecond), len(took))
	return nil
}

// middle is the median.
func middle[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
