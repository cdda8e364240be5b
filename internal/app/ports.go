package app

import (
	"portsentry/internal/config"
	"portsentry/internal/detect"
)

// watchedPorts are the trap ports by how they are watched.
type watchedPorts struct {
	packets, sockets struct{ tcp, udp config.PortSet }
}

// portsOf divides the trap ports of c between the packets that are looked at and
// the sockets that accept.
func portsOf(c *config.Config) (w watchedPorts) {
	for _, p := range []struct {
		mode             config.Mode
		ports            config.PortSet
		packets, sockets *config.PortSet
	}{
		{c.Modes.TCP, c.TrapsTCP(), &w.packets.tcp, &w.sockets.tcp},
		{c.Modes.UDP, c.TrapsUDP(), &w.packets.udp, &w.sockets.udp},
	} {
		if p.mode == config.Connect {
			*p.sockets = p.ports
		} else {
			*p.packets = p.ports
		}
	}
	return w
}

// looksAtPackets and accepts say which kinds of capture the modes need.
func looksAtPackets(m config.Modes) bool { return m.TCP > config.Connect || m.UDP > config.Connect }
func accepts(m config.Modes) bool        { return m.TCP == config.Connect || m.UDP == config.Connect }

// needsPackets reports whether c has packets looked at, for traps or for scans.
func needsPackets(c *config.Config) bool { return looksAtPackets(c.Modes) || findsScans(c) }

// findsScans reports whether c wants scans found that touch no trap.
func findsScans(c *config.Config) bool { return c.ScanDetect == config.DetectFull }

// datagramPorts are the UDP ports whose datagrams are worth a look: traps, and all
// that nobody has and this host sends nothing from. served are those that somebody
// has, first and last those that it sends from.
func datagramPorts(traps config.PortSet, served []uint16, first, last uint16) (set config.PortSet) {
	var taken config.Bitmap
	for _, p := range served {
		taken[p>>6] |= 1 << (p & 63)
	}
	listed := traps.Bitmap()
	for i := 1; i < 1<<16; i++ {
		p := uint16(i)
		if !listed.Has(p) && (taken.Has(p) || p >= first && p <= last) {
			continue
		}
		if n := len(set); n > 0 && set[n-1].Last == p-1 {
			set[n-1].Last = p
		} else {
			set = append(set, config.PortRange{First: p, Last: p})
		}
	}
	return set
}

// rules are those of the detectors: of packets, and of trap sockets.
func (d *daemon) rules(c *config.Config) (packets, sockets detect.Rules) {
	w := portsOf(c)
	packets = detect.Rules{
		TCP: w.packets.tcp.Bitmap(), UDP: w.packets.udp.Bitmap(),
		Trigger: c.ScanTrigger, Window: c.ScanTriggerWindow, TrapServed: d.o.TrapServed,
	}
	sockets = packets
	sockets.TCP, sockets.UDP = w.sockets.tcp.Bitmap(), w.sockets.udp.Bitmap()
	return packets, sockets
}
