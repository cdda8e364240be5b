package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
)

// tally is a counter of `portsentry status`. One that only some ways have is
// optional: without it, nothing was counted so.
type tally struct {
	name     string
	optional bool
}

// losses are the counters of probes that were seen and not recorded.
func losses() []tally {
	return []tally{{name: "ring_lost_total"}, {name: "queue_lost_total"}, {name: "unsure_total"}, {name: "log_lines_lost_total"}}
}

// counts are the counters of probes that were recorded by number instead of one
// line each.
func counts() []tally { return []tally{{"probes_counted_total", true}} }

// total is the sum of counters.
func total(s *harness.Status, of []tally) (int, error) {
	sum := 0
	for _, t := range of {
		v, ok := s.Counter(t.name)
		if !ok && !t.optional {
			return 0, fmt.Errorf("status has no counter %s: the bench and the daemon disagree", t.name)
		}
		sum += int(v)
	}
	return sum, nil
}

// account is what became of a flood. Lines and counters together must account
// for every packet.
type account struct{ arrived, itemised, counted, lost int }

// recorded are the packets that the daemon can tell of.
func (a account) recorded() int { return a.itemised + a.counted }

// missing is how many packets nothing accounts for; below zero, how many were
// counted twice.
func (a account) missing() int { return a.arrived - a.recorded() - a.lost }

func (a account) share() float64 { return 100 * float64(a.itemised) / float64(max(a.arrived, 1)) }

func (a account) String() string {
	return fmt.Sprintf("%s of %s itemised (%.1f %%), %s counted, %s counted as lost, %s without a number",
		thousands(a.itemised), thousands(a.arrived), a.share(), thousands(a.counted), thousands(a.lost), thousands(a.missing()))
}

// flooded is one flood of trap ports from a million sources, and its cost. The
// CPU time is the processes' own: what the kernel does per packet, capture and
// XDP program included, runs on the account of whoever sends.
type flooded struct {
	account
	sent pktgen.Sent
	cpu  time.Duration
	used harness.Usage // afterwards
}

func (f *flooded) perMillion() float64 {
	return f.cpu.Seconds() / (float64(max(f.recorded(), 1)) / 1e6)
}

const millionSources = 1_000_000

// pour floods ports of the host in a million names of from, and gives what that took.
func (w *world) pour(ctx context.Context, d *harness.Daemon, from string, ports []uint16, count int, rate float64) (flooded, error) {
	var f flooded
	before, err := settle(ctx, d)
	if err != nil {
		return f, err
	}
	names := netip.MustParsePrefix(from)
	f.sent, err = w.send.Flood(ctx, w.syn(names.Addr(), 40000, trapPort), pktgen.FloodOpts{
		Count: count, Rate: rate, DstPorts: ports,
		SourcePrefix: names, Sources: millionSources, VarySrcPort: true,
	})
	if err != nil {
		return f, err
	}
	if f.used, err = settle(ctx, d); err != nil {
		return f, err
	}
	f.cpu = f.used.CPU - before.CPU
	f.arrived = f.sent.Frames - f.sent.Dropped
	return f, nil
}

func (w *world) flood(ctx context.Context, d *harness.Daemon, count int, rate float64) (flooded, error) {
	f, err := w.pour(ctx, d, forged, []uint16{1, trapPort, 79, 31337}, count, rate)
	if err != nil {
		return f, err
	}
	if f.itemised, err = d.Out.Scans(); err != nil {
		return f, err
	}
	status, err := d.Status(ctx)
	if err != nil {
		return f, err
	}
	if f.counted, err = total(&status, counts()); err != nil {
		return f, err
	}
	f.lost, err = total(&status, losses())
	return f, err
}

// floods measures what is itemised at three rates, log only, into a file.
func (b *bench) floods(ctx context.Context) error {
	return b.each(func(by way) error { return b.floodsOf(ctx, by) })
}

func (b *bench) floodsOf(ctx context.Context, by way) error {
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
		err := b.with(ctx, by.logOnly(), func(w *world, d *harness.Daemon) error {
			f, err := w.flood(ctx, d, b.count(c.count), c.rate)
			if err != nil {
				return err
			}
			met := f.missing() == 0 && (!c.itemiseAll || f.itemised == f.arrived)
			b.row(by.name, c.what, c.target, met, "%v; sent at %s/s", f.account, thousands(int(f.sent.Rate())))
			b.row(by.name, "  CPU seconds per million recorded", fmt.Sprintf("at most %v", by.perMillion),
				f.perMillion() <= by.perMillion, "%.2f", f.perMillion())
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// memoryLimit is the target for all processes and their BPF maps.
const memoryLimit = 96 << 20

// within reports whether memory is below its target after a flood, and after
// another one, which has added next to nothing.
func within(once, twice int64) bool { return max(once, twice) <= memoryLimit && twice <= once+once/10 }

// memory measures what a million forged sources leave behind, and what the same twice
// again adds. So many bans a second are made on what anybody can forge that it takes two
// floods until there are as many as there may be: from then on it is to be flat.
func (b *bench) memory(ctx context.Context) error {
	return b.each(func(by way) error { return b.memoryOf(ctx, by) })
}

func (b *bench) memoryOf(ctx context.Context, by way) error {
	for _, c := range []struct {
		what   string
		config map[string]string
	}{{"log only", by.logOnly()}, {"banning", by.banning()}} {
		err := b.with(ctx, c.config, func(w *world, d *harness.Daemon) error {
			var used [3]harness.Usage
			for i := range used {
				flood, err := w.flood(ctx, d, b.count(millionSources), 0)
				if err != nil {
					return err
				}
				used[i] = flood.used
			}
			b.row(by.name, fmt.Sprintf("memory after %s forged sources, %s", thousands(b.count(millionSources)), c.what), "at most 96 MiB, flat from then on",
				used[0].Memory() <= memoryLimit && within(used[1].Memory(), used[2].Memory()),
				"%s; %s; %s after as many and as many again", memoryOf(used[0]), memoryOf(used[1]), memoryOf(used[2]))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// memoryOf writes memory as its parts and their sum. What a daemon has mapped of
// its BPF maps is in both parts; nftables sets are in neither.
func memoryOf(u harness.Usage) string {
	return fmt.Sprintf("%.1f MiB (%.1f resident, %.1f BPF maps)", mib(u.Memory()), mib(u.RSS), mib(u.Maps))
}
