package app

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/config"
	"portsentry/internal/host"
)

// senses reports whether c wants packets read by the XDP program, and drops
// whether it wants the banned dropped by it.
func senses(c *config.Config) bool {
	return c.Capture != config.CaptureAFPacket && needsPackets(c)
}

func drops(c *config.Config) bool {
	return blocks(c) && (slices.Contains(c.BlockMethods, config.MethodXDP) || slices.Contains(c.BlockMethods, config.MethodAuto))
}

// wantsXDP reports whether c wants the XDP program at all.
func wantsXDP(c *config.Config) bool { return senses(c) || drops(c) }

// sensing reports whether the XDP program reads packets for c.
func (d *daemon) sensing(c *config.Config) bool { return d.sensor.Load() != nil && senses(c) }

// dropping reports whether it drops the banned.
func (d *daemon) dropping(c *config.Config) bool { return d.sensor.Load() != nil && drops(c) }

// setSensor points the program and its detectors at the trap ports of c.
func (d *daemon) setSensor(c *config.Config) error {
	s := d.sensor.Load()
	if s == nil {
		return nil
	}
	s.source.SetAnswers(blocks(c))
	rules, _ := d.rules(c)
	for _, p := range s.pipelines {
		p.detector.SetRules(rules)
		if err := d.setScanner(p, c); err != nil {
			return err
		}
	}
	facts := d.facts.watcher.Snapshot()
	elsewhere, why := true, ""
	if d.nat != nil {
		elsewhere, why = d.nat.State()
	}
	if elsewhere && d.nat != nil && d.dropping(c) && !d.tableBans(c) {
		d.problems.set("nat", "the XDP program leaves it to nftables to decide who hits a trap, which does not ban here (BLOCK_METHOD): "+why)
	} else if d.nat != nil {
		d.problems.set("nat", "")
	}
	r := bpf.Rules{
		Sense: d.sensing(c) || d.reads.Load(), Scans: findsScans(c), LimitedOnly: c.BlockEvidence == config.EvidenceVerified, TrapServed: d.o.TrapServed,
		Elsewhere: elsewhere, VLANs: hasVLANs(facts), Nftables: d.tableBans(c) && !d.standby.on.Load(), OwnTraps: accepts(c.Modes),
		Verify: c.VerifySource && d.sensing(c), Provisional: min(provisional, c.BanTimeUnverified),
		EphemeralFirst: facts.EphemeralFirst, EphemeralLast: facts.EphemeralLast,
	}
	if d.dropping(c) && c.ScanTrigger <= 1 {
		r.TCP, r.UDP = protocols(c.BlockTCP, bpf.BanTCP), protocols(c.BlockUDP, bpf.BanUDP)
	}
	ports := portsOf(c).packets
	err := s.SetTraps((*bpf.Ports)(ports.tcp.Bitmap()), (*bpf.Ports)(ports.udp.Bitmap()))
	if err == nil {
		err = s.SetRules(r)
	}
	return err
}

// connected takes in who has completed a handshake with a port that is served: a
// peer, and one attempt of his that did not fail.
func (d *daemon) connected(who netip.Addr, local netip.AddrPort) {
	d.peers.See(who)
	d.record.learned.connected(who, local.Port())
	if s := d.sensor.Load(); s != nil {
		s.pipelines[s.WorkerOf(who)].succeeded(success{time.Now().UnixNano(), who, local})
	}
}

// hasVLANs reports whether tagged frames are for a device of their own, to which
// sockets may be bound.
func hasVLANs(s *host.Snapshot) bool {
	return slices.ContainsFunc(s.Links, func(l host.Link) bool { return l.Kind == "vlan" })
}

// protocols are those that a hit keeps its source out of.
func protocols(b config.Block, one bpf.Protos) bpf.Protos {
	switch b {
	case config.BlockBan:
		return bpf.BanAll
	case config.BlockCommand:
		return one
	}
	return 0
}

// tellSensor tells the program about the machine as it is now.
func (d *daemon) tellSensor(c *config.Config, spare []netip.Prefix) {
	said := ""
	if c.VerifySource && !d.sensing(c) {
		said = "VERIFY_SOURCE has no effect: it takes the XDP program (CAPTURE=\"auto\" or \"xdp\") in stealth or advanced mode for TCP"
	}
	d.problems.set("verify", said)
	s := d.sensor.Load()
	if s == nil {
		return
	}
	own := slices.DeleteFunc(slices.Collect(maps.Keys(d.facts.watcher.Snapshot().Own)), netip.Addr.IsLoopback)
	said = ""
	if err := errors.Join(s.SetOwn(own), s.SetSpare(spare), d.setSensor(c), s.TakeOver()); err != nil {
		said = fmt.Sprintf("what the XDP program knows of this machine is old: %v", err)
	}
	d.problems.set("tell", said)
}
