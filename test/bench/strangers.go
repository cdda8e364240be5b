package main

import (
	"context"
	"fmt"

	"portsentry/test/harness"
)

// Strangers probe what nobody serves and no trap is at: with SCAN_DETECT=full each
// of them is a contact that the engine looks at, and that is neither a line nor,
// alone, a reason for a ban.

// firstClosed to lastClosed are closed ports, traps not among them: so many that the
// flood is no flood of one port, which would not be scored.
const firstClosed, lastClosed = 2100, 3099

// forgedToo are a million names that are not among the first million of forged.
const forgedToo = "100.96.0.0/12"

func closedPorts() []uint16 {
	var ports []uint16
	for p := uint16(firstClosed); p <= lastClosed; p++ {
		ports = append(ports, p)
	}
	return ports
}

// looked and unlooked are the counters of contacts.
func looked() []tally { return []tally{{name: "contacts_total"}} }

func unlooked() []tally {
	return []tally{
		{name: "contacts_lost_total"}, {name: "contacts_unsure_total"}, {name: "ring_lost_total"}, {name: "untold_total"},
	}
}

// encounter is a flood of strangers. Of its account, itemised are those that were
// looked at.
func (w *world) encounter(ctx context.Context, d *harness.Daemon, from string, ports []uint16, count int) (flooded, error) {
	var was, is [2]int
	if err := contacts(ctx, d, &was); err != nil {
		return flooded{}, err
	}
	f, err := w.pour(ctx, d, from, ports, count, 0)
	if err == nil {
		err = contacts(ctx, d, &is)
	}
	f.itemised, f.lost = is[0]-was[0], is[1]-was[1]
	return f, err
}

// contacts reads how many were looked at, and how many were not.
func contacts(ctx context.Context, d *harness.Daemon, n *[2]int) error {
	status, err := d.Status(ctx)
	for i, of := range [][]tally{looked(), unlooked()} {
		if err == nil {
			n[i], err = total(&status, of)
		}
	}
	return err
}

func (b *bench) strangers(ctx context.Context) error {
	return b.each(func(by way) error { return b.strangersOf(ctx, by) })
}

func (b *bench) strangersOf(ctx context.Context, by way) error {
	by.detect = "full"
	n := b.count(millionSources)
	for _, c := range []struct {
		what   string
		config map[string]string
	}{{"log only", by.logOnly()}, {"banning", by.banning()}} {
		err := b.with(ctx, c.config, func(w *world, d *harness.Daemon) error {
			ports := closedPorts()
			others := append(ports[1:len(ports):len(ports)], ports[0])
			var f [3]flooded
			for i, c := range []struct {
				from  string
				ports []uint16
			}{{forged, ports}, {forgedToo, ports}, {forged, others}} {
				var err error
				if f[i], err = w.encounter(ctx, d, c.from, c.ports, n); err != nil {
					return err
				}
			}
			first, second, back := &f[0], &f[1], &f[2]
			b.row(by.name, fmt.Sprintf("%s forged SYNs to closed ports, %s", thousands(n), c.what), "100 % accounted for",
				first.missing() == 0 && second.missing() == 0 && back.missing() == 0, "%s; %s of as many others; sent at %s/s",
				met(first.account), met(second.account), thousands(int(first.sent.Rate())))
			b.row(by.name, "  CPU seconds per million looked at", fmt.Sprintf("at most %v", by.perMillion),
				max(first.perMillion(), second.perMillion()) <= by.perMillion, "%.2f; %.2f of as many others", first.perMillion(), second.perMillion())
			b.row(by.name, "  memory", "at most 96 MiB, flat from then on",
				within(first.used.Memory(), second.used.Memory()) && back.used.Memory() <= memoryLimit,
				"%s; %s after as many others; %.1f MiB when the first came back", memoryOf(first.used), memoryOf(second.used), mib(back.used.Memory()))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// met is the account of strangers in words.
func met(a account) string {
	return fmt.Sprintf("%s of %s looked at (%.1f %%), %s counted as lost, %s without a number",
		thousands(a.itemised), thousands(a.arrived), a.share(), thousands(a.lost), thousands(a.missing()))
}
