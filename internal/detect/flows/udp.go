package flows

import (
	"net/netip"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// stream is more datagrams to one port, without any answer, than a probe is
// repeated (nmap: 11 at most): media, logs, measurements, and no question.
const stream = 16

// callers is how long unicast answers to a multicast or broadcast may take: the
// most that SSDP lets somebody ask for (UPnP Device Architecture 1.0, MX up to 120 s).
const callers = 120e9

// udp follows datagrams.
func (t *Tracker) udp(p *decode.Probe, f *capture.Frame) {
	if toAll(p, f) {
		t.note(about(classCaller, p.Src, p.SrcPort))
		return
	}
	k, from := pair(classUDP, p.Src, p.Dst, p.SrcPort, p.DstPort)
	at := t.place(&k)
	i, _ := t.find(&k, at)
	if i == none {
		t.udpFirst(p, &k, at, from)
		return
	}
	e := &t.entries[i]
	e.seen |= from
	switch {
	case e.state == doubtful:
		if from != e.src {
			t.drop(i) // somebody is there, whoever began
		}
	case e.state != asked:
		if from != e.src {
			e.state = live // late
		}
	case from != e.src:
		t.delay.sample(t.now - e.start)
		t.finish(i, detect.Answered)
	default:
		if e.count++; e.count == stream {
			t.drop(i)
		}
	}
}

// udpFirst is the first datagram between two ports.
func (t *Tracker) udpFirst(p *decode.Probe, k *key, at place, from side) {
	answer := t.udpAnswer(p)
	i := t.insert(k, at)
	if i == none {
		return
	}
	if answer || p.Src.IsUnspecified() || traced(p) {
		t.entries[i].src, t.entries[i].seen = from, from
		return
	}
	if service(p.SrcPort) && !service(p.DstPort) {
		// It looks like the answer to a question that was not seen.
		t.begin(i, p, from, doubtful, detect.KindUDP)
		return
	}
	t.begin(i, p, from, asked, detect.KindUDP)
	t.entries[i].count = 1

	sender := makeKey(classSender, p.Src, p.Dst, p.SrcPort, 0)
	at = t.place(&sender)
	j, _ := t.find(&sender, at)
	if j == none {
		if j = t.insert(&sender, at); j == none {
			return
		}
	}
	t.entries[j].number = uint32(p.DstPort)
}

// udpAnswer reports whether p, the first datagram between two ports, answers
// something, and lets what it answers know.
func (t *Tracker) udpAnswer(p *decode.Probe) bool {
	// A server may answer from another port (RFC 1350). Of several that were asked
	// from the same port it is the last.
	asker := makeKey(classSender, p.Dst, p.Src, p.DstPort, 0)
	if j := t.at(&asker, t.place(&asker)); j != none {
		k, from := pair(classUDP, p.Dst, p.Src, p.DstPort, uint16(t.entries[j].number))
		if i := t.at(&k, t.place(&k)); i != none && t.entries[i].state == asked && t.entries[i].src == from {
			t.finish(i, detect.Answered)
		}
		return true
	}
	if ago, ok := t.known(about(classCaller, p.Dst, p.DstPort)); ok && ago <= callers {
		return true
	}
	switch {
	case p.SrcPort == 67 && p.DstPort == 68, p.SrcPort == 547 && p.DstPort == 546:
		return true // DHCP: to an address that has only just been given
	}
	return false
}

// service reports whether datagrams from port are a service's rather than a
// client's: system ports, and those of services whose clients take other ports.
func service(port uint16) bool {
	switch port {
	case 1194, // OpenVPN
		1701, 4500, 51820, // L2TP, IPsec NAT traversal, WireGuard
		1812, 1813, // RADIUS
		1900, 3702, 5353, 5355, // SSDP, WS-Discovery, mDNS, LLMNR
		3478, 3479, 3480, 3481, 5349, 19302, // STUN and TURN
		3544,       // Teredo
		5060, 5061, // SIP
		5683, 5684, // CoAP
		3283, 3389, 10001, 11211, 32410, 32414, 37810, // what floods are reflected by (CISA TA14-017A)
		27015, 27016, 27017, 27018, 27019, 27020: // Valve's games
		return true
	}
	return port < 1024
}

// traced reports whether p is one of traceroute's: its ports (33434 and upwards,
// one for each probe), with no more hops to go than traceroute counts. No stack
// starts a datagram with so few.
func traced(p *decode.Probe) bool {
	return p.DstPort >= 33434 && p.DstPort < 33690 && p.TTL < lowTTL
}

// lowTTL is below every initial hop limit in use (32, 64, 128, 255).
const lowTTL = 32

// toAll reports whether p goes to more than one host, as far as one can know: the
// netmask is not in the packet.
func toAll(p *decode.Probe, f *capture.Frame) bool {
	if p.Dst.IsMulticast() || capture.PacketType(p.PacketType) == capture.PacketBroadcast {
		return true
	}
	if f != nil && f.Link == capture.LinkEthernet && len(f.Data) >= 6 && [6]byte(f.Data) == [6]byte{255, 255, 255, 255, 255, 255} {
		return true
	}
	return isBroadcast(p.Dst)
}

func isBroadcast(a netip.Addr) bool {
	return a.Is4() && a.As4()[3] == 255
}
