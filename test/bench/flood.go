package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
)

// lossNames are the counters of probes that were seen and not itemised.
// Together with the lines they must account for every packet.
func lossNames() []string {
	return []string{"ring_lost_total", "queue_lost_total", "unsure_total", "log_lines_lost_total"}
}

// account is what became of a flood.
type account struct{ arrived, itemised, lost int }

// missing is how many packets nothing accounts for; below zero, how many were
// counted twice.
func (a account) missing() int { return a.arrived - a.itemised - a.lost }

func (a account) share() float64 { return 100 * float64(a.itemised) / float64(max(a.arrived, 1)) }

func (a account) String() string {
	return fmt.Sprintf("%s of %s itemised (%.1f %%), %s counted as lost, %s without a number",
		thousands(a.itemised), thousands(a.arrived), a.share(), thousands(a.lost), thousands(a.missing()))
}

func lost(s *harness.Status) (int, error) {
	sum := 0
	for _, name := range lossNames() {
		v, ok := s.Counter(name)
		if !ok {
			return 0, fmt.Errorf("status has no counter %s: the bench and the daemon disagree", name)
		}
		sum += int(v)
	}
	return sum, nil
}

// flooded is one flood of trap ports from a million sources, and its cost.
type flooded struct {
	account
	sent pktgen.Sent
	cpu  time.Duration
	rss  int64
}

func (f *flooded) perMillion() float64 {
	return f.cpu.Seconds() / (float64(max(f.itemised, 1)) / 1e6)
}

const millionSources = 1_000_000

func (w *world) flood(ctx context.Context, d *harness.Daemon, count int, rate float64) (flooded, error) {
	var f flooded
	before, err := settle(ctx, d)
	if err != nil {
		return f, err
	}
	f.sent, err = w.send.Flood(ctx, w.syn(netip.MustParsePrefix(forged).Addr(), 40000, trapPort), pktgen.FloodOpts{
		Count: count, Rate: rate, DstPorts: []uint16{1, trapPort, 79, 31337},
		SourcePrefix: netip.MustParsePrefix(forged), Sources: millionSources, VarySrcPort: true,
	})
	if err != nil {
		return f, err
	}
	after, err := settle(ctx, d)
	if err != nil {
		return f, err
	}
	f.cpu, f.rss = after.CPU-before.CPU, after.RSS
	f.arrived = f.sent.Frames - f.sent.Dropped
	if f.itemised, err = d.Out.Scans(); err != nil {
		return f, err
	}
	status, err := d.Status(ctx)
	if err != nil {
		return f, err
	}
	f.lost, err = lost(&status)
	return f, err
}

// floods measures what is itemised at three rates, log only, into a file.
func (b *bench) floods(ctx context.Context) error {
	for _, c := range []struct {
		what, target string
		count        int
		rate         float64
		itemiseAll   bool
	}{
		{"forged SYNs to traps at 20,000/s", "100 % itemised", 200_000, 20_000, true},
		{"forged SYNs to traps at 100,000/s", "100 % itemised", 500_000, 100_000, true},
		{"forged SYNs to traps at full speed", "100 % accounted for", 1_000_000, 0, false},
	} {
		err := b.with(ctx, logOnly(), func(w *world, d *harness.Daemon) error {
			f, err := w.flood(ctx, d, b.count(c.count), c.rate)
			if err != nil {
				return err
			}
			met := f.missing() == 0 && (!c.itemiseAll || f.itemised == f.arrived)
			b.row(c.what, c.target, met, "%v; sent at %s/s", f.account, thousands(int(f.sent.Rate())))
			b.row("  CPU seconds per million recorded", "at most 4 with AF_PACKET", f.perMillion() <= 4, "%.2f", f.perMillion())
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// memory measures what a million forged sources leave behind, and what the same
// again adds.
func (b *bench) memory(ctx context.Context) error {
	const limit = 96 << 20
	for _, c := range []struct {
		what   string
		config map[string]string
	}{{"log only", logOnly()}, {"banning", banning()}} {
		err := b.with(ctx, c.config, func(w *world, d *harness.Daemon) error {
			first, err := w.flood(ctx, d, b.count(millionSources), 0)
			if err != nil {
				return err
			}
			second, err := w.flood(ctx, d, b.count(millionSources), 0)
			if err != nil {
				return err
			}
			b.row(fmt.Sprintf("resident after %s forged sources, %s", thousands(b.count(millionSources)), c.what), "at most 96 MiB, flat from then on",
				max(first.rss, second.rss) <= limit && second.rss <= first.rss+first.rss/10,
				"%.1f MiB, %.1f MiB after as many again", mib(first.rss), mib(second.rss))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
