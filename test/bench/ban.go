package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
)

// sniffLimit bounds the answers kept of one run.
const sniffLimit = 200_000

// open counts the distinct probes among sent that were answered as by an open
// port, by source. A SYN-ACK that the host repeats is one answer; one that it
// repeats to somebody who probed before, such as the control, is none.
func open(sent []pktgen.Packet, answers []pktgen.Answer) map[netip.Addr]int {
	type probe struct {
		src  netip.Addr
		port uint16
	}
	unseen := make(map[probe]bool)
	for i := range sent {
		unseen[probe{sent[i].Src, sent[i].SrcPort}] = true
	}
	bySource := make(map[netip.Addr]int)
	for i := range answers {
		a := &answers[i]
		p := probe{a.Dst, a.DstPort}
		if a.IsSYNACK() && a.SrcPort == servedPort && unseen[p] {
			delete(unseen, p)
			bySource[a.Dst]++
		}
	}
	return bySource
}

// attack sends packets at a rate and gives the probes answered by source.
func (w *world) attack(ctx context.Context, packets []pktgen.Packet, rate float64) (map[netip.Addr]int, pktgen.Sent, error) {
	frames, err := w.frames(packets)
	if err != nil {
		return nil, pktgen.Sent{}, err
	}
	sniffer, err := pktgen.Sniff(ctx, w.scanner.NS, w.scanner.Name, sniffLimit)
	if err != nil {
		return nil, pktgen.Sent{}, err
	}
	sent, err := w.send.Send(ctx, frames, rate)
	if err == nil {
		err = pause(ctx, 300*time.Millisecond) // the last answers
	}
	answers, stopErr := sniffer.Stop()
	if err == nil {
		err = stopErr
	}
	return open(packets, answers), sent, err
}

// control proves that the served port answers who has hit no trap: a figure of
// zero says nothing without it.
func (w *world) control(ctx context.Context) error {
	const probes = 100
	for _, src := range []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8:c::9")} {
		var packets []pktgen.Packet
		for i := range probes {
			packets = append(packets, w.syn(src, uint16(20000+i), servedPort))
		}
		answered, _, err := w.attack(ctx, packets, 10_000)
		if err != nil {
			return err
		}
		if answered[src] != probes {
			return fmt.Errorf("%d of %d probes of the served port from %v were answered before any hit", answered[src], probes, src)
		}
	}
	return nil
}

// answers measures what a scanner learns after its first hit: 3,000 probes of
// the served port behind one of a trap, the first one gap behind it.
func (b *bench) answers(ctx context.Context) error {
	return b.each(func(by way) error { return b.answersOf(ctx, by) })
}

func (b *bench) answersOf(ctx context.Context, by way) error {
	const probes, runs = 3000, 3
	return b.with(ctx, by.banning(), func(w *world, d *harness.Daemon) error {
		if err := w.serve(); err != nil {
			return err
		}
		if err := w.control(ctx); err != nil {
			return err
		}
		attacker := 0
		for _, family := range []struct{ name, prefix string }{{"IPv4", "198.51.100.0"}, {"IPv6", "2001:db8:a::"}} {
			for _, gap := range []time.Duration{5 * time.Microsecond, 100 * time.Microsecond} {
				worst, slowest := 0, pktgen.Sent{}
				for range runs {
					attacker++
					src := nth(netip.MustParseAddr(family.prefix), attacker)
					packets := []pktgen.Packet{w.syn(src, 20000, trapPort)}
					for i := range probes {
						packets = append(packets, w.syn(src, uint16(20001+i), servedPort))
					}
					answered, sent, err := w.attack(ctx, packets, float64(time.Second/gap))
					if err != nil {
						return err
					}
					worst = max(worst, answered[src])
					if sent.Took > slowest.Took {
						slowest = sent
					}
				}
				b.row(by.name, fmt.Sprintf("probes answered after the trap hit, one every %v, %s", gap, family.name), "0", worst == 0,
					"%d of %s (worst of %d runs; sent at %s/s or more)", worst, thousands(probes), runs, thousands(int(slowest.Rate())))
			}
		}
		return nil
	})
}

// nth is the address i behind base. For IPv6 each i is a /64 of its own, because
// a ban covers one.
func nth(base netip.Addr, i int) netip.Addr {
	b := base.AsSlice()
	at := len(b) - 1
	if base.Is6() {
		at = 7
		b[15] = 1
	}
	b[at], b[at-1] = byte(i), b[at-1]+byte(i>>8)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// attackers measures 200 sources that each hit a trap and then probe the served
// port four times.
func (b *bench) attackers(ctx context.Context) error {
	return b.each(func(by way) error { return b.attackersOf(ctx, by) })
}

func (b *bench) attackersOf(ctx context.Context, by way) error {
	const sources, each = 200, 5
	for _, within := range []time.Duration{time.Second, 20 * time.Millisecond} {
		err := b.with(ctx, by.banning(), func(w *world, d *harness.Daemon) error {
			if err := w.serve(); err != nil {
				return err
			}
			if err := w.control(ctx); err != nil {
				return err
			}
			var packets []pktgen.Packet
			for i := range sources {
				src := nth(netip.MustParseAddr("203.0.113.0"), 1+i)
				packets = append(packets, w.syn(src, 20000, trapPort))
				for k := range each - 1 {
					packets = append(packets, w.syn(src, uint16(20001+k), servedPort))
				}
			}
			answered, sent, err := w.attack(ctx, packets, float64(len(packets))/within.Seconds())
			if err != nil {
				return err
			}
			if _, err := settle(ctx, d); err != nil {
				return err
			}
			status, err := d.Status(ctx)
			if err != nil {
				return err
			}
			b.row(by.name, fmt.Sprintf("200 attackers within %v", within), "200 banned by their own first hit",
				status.Bans == sources && len(answered) == 0,
				"%d banned; %d got an answer after their hit; took %v", status.Bans, len(answered), sent.Took.Round(time.Millisecond))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sources measures the cost of banning: 1,000 sources, one probe each.
func (b *bench) sources(ctx context.Context) error {
	return b.each(func(by way) error { return b.sourcesOf(ctx, by) })
}

func (b *bench) sourcesOf(ctx context.Context, by way) error {
	const sources = 1000
	return b.with(ctx, by.banning(), func(w *world, d *harness.Daemon) error {
		before, err := settle(ctx, d)
		if err != nil {
			return err
		}
		from := netip.MustParsePrefix("198.18.0.0/15")
		_, err = w.send.Flood(ctx, w.syn(from.Addr(), 40000, trapPort), pktgen.FloodOpts{
			Count: sources, Rate: 1000, SourcePrefix: from, Sources: sources,
		})
		if err != nil {
			return err
		}
		after, err := settle(ctx, d)
		if err != nil {
			return err
		}
		status, err := d.Status(ctx)
		if err != nil {
			return err
		}
		cpu := (after.CPU - before.CPU).Seconds()
		b.row(by.name, "1,000 sources at 1,000/s with banning: banned", "100 %", status.Bans == sources, "%.1f %%", float64(status.Bans)*100/sources)
		b.row(by.name, "  CPU seconds", "at most 0.05", cpu <= 0.05, "%.3f", cpu)
		return nil
	})
}
