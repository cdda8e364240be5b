package sight_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

const (
	synScan = "TCP SYN/Normal scan"
	udpScan = "UDP"
)

// TestPackets sends what nmap cannot: each kind of packet to a port of its own,
// and each of them is one line or none.
func TestPackets(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	const base = 1000
	// A gateway: what it passes on to others is not for it.
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := l.Host.NS.Sysctl(key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	w, d := listen(t, l, map[string]string{"TCP_PORTS": "1000-1999", "UDP_PORTS": "1000-1999"})

	type packet = pktgen.Packet
	reverse := func(f [][]byte) [][]byte { slices.Reverse(f); return f }
	second := func(f [][]byte) [][]byte { return f[1:] }
	ext := func(headers ...pktgen.ExtHeader) func(*packet) {
		return func(p *packet) { p.ExtHeaders = headers }
	}
	udp := func(p *packet) { p.Proto, p.Payload = pktgen.ProtoUDP, []byte("0123456789") }
	// disguised carries, 24 bytes behind its own TCP header for a port that is no
	// trap, what looks like a SYN to the port of the case.
	disguised := func(p *packet) {
		inner := packet{Src: p.Src, Dst: p.Dst, Proto: pktgen.ProtoTCP, SrcPort: 1, DstPort: p.DstPort, Flags: pktgen.SYN}
		b, err := inner.AppendTo(nil, nil)
		if err != nil {
			t.Error(err)
		}
		p.Payload, p.DstPort, p.TCPOptions, p.FragmentSize = b[len(b)-20:], 99, []byte{1, 1, 1, 1}, 24
	}
	promiscuous := "" // a card that listens to everything hands over what is for others, too
	if lab.How() == "XDP" {
		promiscuous = synScan // the program knows IP addresses alone
	}
	cases := []struct {
		name   string
		v6     bool
		edit   func(*packet)
		frames func([][]byte) [][]byte
		kind   string // "": nothing is to be seen
		opts   string // "": not set, or unknown of IPv6
	}{
		{name: "plain", kind: synScan},
		{name: "plain IPv6", v6: true, kind: synScan},
		{name: "UDP", edit: udp, kind: udpScan},
		{name: "with data", edit: func(p *packet) { p.Payload = make([]byte, 1000) }, kind: synScan},
		{name: "TTL 1", edit: func(p *packet) { p.TTL = 1 }, kind: synScan},

		{name: "8 bytes of hop-by-hop options", v6: true, edit: ext(pktgen.ExtHeader{Type: pktgen.HopByHop, Len: 8}), kind: synScan},
		{name: "16 bytes of hop-by-hop options", v6: true, edit: ext(pktgen.ExtHeader{Type: pktgen.HopByHop, Len: 16}), kind: synScan},
		{name: "8 bytes of destination options", v6: true, edit: ext(pktgen.ExtHeader{Type: pktgen.DestOptions, Len: 8}), kind: synScan},
		{name: "16 bytes of destination options", v6: true, edit: ext(pktgen.ExtHeader{Type: pktgen.DestOptions, Len: 16}), kind: synScan},
		{name: "a routing header", v6: true, edit: ext(pktgen.ExtHeader{Type: pktgen.Routing, Len: 8}), kind: synScan},
		{name: "an atomic fragment", v6: true, edit: ext(pktgen.ExtHeader{Type: pktgen.FragmentHdr, Len: 8}), kind: synScan},
		{name: "four headers in a row", v6: true, edit: ext(
			pktgen.ExtHeader{Type: pktgen.HopByHop, Len: 16}, pktgen.ExtHeader{Type: pktgen.DestOptions, Len: 24},
			pktgen.ExtHeader{Type: pktgen.Routing, Len: 8}, pktgen.ExtHeader{Type: pktgen.DestOptions, Len: 256}), kind: synScan},
		{name: "UDP behind destination options", v6: true, edit: func(p *packet) {
			udp(p)
			p.ExtHeaders = []pktgen.ExtHeader{{Type: pktgen.DestOptions, Len: 8}}
		}, kind: udpScan},

		{name: "tagged", edit: func(p *packet) { p.VLANs = []uint16{5} }, kind: synScan},
		{name: "tagged IPv6", v6: true, edit: func(p *packet) { p.VLANs = []uint16{5} }, kind: synScan},
		{name: "tagged twice", edit: func(p *packet) { p.VLANs = []uint16{5, 6} }, kind: synScan},
		{name: "tagged twice IPv6", v6: true, edit: func(p *packet) { p.VLANs = []uint16{5, 6} }, kind: synScan},
		{name: "tagged for priority only", edit: func(p *packet) { p.VLANs = []uint16{7 << 13} }, kind: synScan},
		{name: "tagged UDP", edit: func(p *packet) { udp(p); p.VLANs = []uint16{5, 6} }, kind: udpScan},

		{name: "fragments of 8 bytes", edit: func(p *packet) { p.FragmentSize = 8 }, kind: synScan},
		{name: "fragments of 8 bytes, last first", edit: func(p *packet) { p.FragmentSize, p.IPID = 8, 2 }, frames: reverse, kind: synScan},
		{name: "fragments of 16 bytes, last first", edit: func(p *packet) { p.FragmentSize, p.IPID = 16, 3 }, frames: reverse, kind: synScan},
		{name: "fragments in IPv6", v6: true, edit: func(p *packet) { p.FragmentSize = 8 }, kind: synScan},
		{name: "fragments in IPv6, last first", v6: true, edit: func(p *packet) { p.FragmentSize, p.IPID = 8, 2 }, frames: reverse, kind: synScan},
		{name: "UDP in fragments", edit: func(p *packet) { udp(p); p.FragmentSize, p.IPID = 8, 4 }, kind: udpScan},
		{name: "UDP in fragments, last first", edit: func(p *packet) { udp(p); p.FragmentSize, p.IPID = 8, 5 }, frames: reverse, kind: udpScan},
		{name: "FIN in tagged fragments", edit: func(p *packet) {
			p.FragmentSize, p.IPID, p.VLANs, p.Flags = 8, 6, []uint16{5}, pktgen.FIN
		}, kind: "TCP FIN scan"},
		{name: "data that looks like a SYN", edit: func(p *packet) { disguised(p); p.IPID = 7 }},
		{name: "later fragment that looks like a SYN", edit: func(p *packet) { disguised(p); p.IPID = 8 }, frames: second},
		{name: "later fragment that looks like a SYN in IPv6", v6: true, edit: func(p *packet) { disguised(p); p.IPID = 9 }, frames: second},

		{name: "no-operation options", edit: func(p *packet) { p.IPOptions = []byte{1, 1, 1, 1} }, kind: synScan, opts: "set"},
		{name: "40 bytes of options", edit: func(p *packet) { p.IPOptions = slices.Repeat([]byte{1}, 40) }, kind: synScan, opts: "set"},
		{name: "UDP with options", edit: func(p *packet) { udp(p); p.IPOptions = []byte{148, 4, 0, 0} }, kind: udpScan, opts: "set"},

		{name: "wrong IP checksum", edit: func(p *packet) { p.BadIPChecksum = true }},
		{name: "wrong TCP checksum", edit: func(p *packet) { p.BadChecksum = true }},
		{name: "wrong TCP checksum in IPv6", v6: true, edit: func(p *packet) { p.BadChecksum = true }},
		{name: "wrong UDP checksum", edit: func(p *packet) { udp(p); p.BadChecksum = true }},
		{name: "wrong UDP checksum in IPv6", v6: true, edit: func(p *packet) { udp(p); p.BadChecksum = true }},
		{name: "no UDP checksum", edit: udp, frames: noChecksum, kind: udpScan},
		{name: "no UDP checksum in IPv6", v6: true, edit: udp, frames: noChecksum},
		{name: "TCP data offset of 4 bytes", frames: func(f [][]byte) [][]byte { f[0][14+20+12] = 1 << 4; return f }},
		{name: "IP header of 16 bytes", frames: func(f [][]byte) [][]byte { f[0][14] = 0x44; return f }},
		{name: "cut off behind the ports", frames: func(f [][]byte) [][]byte { f[0] = f[0][:14+20+4]; return f }},

		{name: "to the broadcast hardware address", frames: to("ff:ff:ff:ff:ff:ff"), kind: synScan},
		{name: "to another hardware address", frames: to("02:00:00:00:00:99"), kind: promiscuous},
		{name: "to another address behind us", edit: func(p *packet) { p.Dst = netip.MustParseAddr("198.51.100.9") }},
		{name: "to another address behind us in IPv6", v6: true, edit: func(p *packet) { p.Dst = netip.MustParseAddr("2001:db8::9") }},
		{name: "to a neighbour", edit: func(p *packet) { p.Dst = netip.MustParseAddr("10.77.0.200") }},
		{name: "to the subnet's broadcast address", edit: func(p *packet) { udp(p); p.Dst = netip.MustParseAddr("10.77.255.255") }},
		{name: "to everybody", edit: func(p *packet) { udp(p); p.Dst = netip.MustParseAddr("255.255.255.255") }},
		{name: "to a multicast group", edit: func(p *packet) { udp(p); p.Dst = netip.MustParseAddr("224.0.0.251") }},
		{name: "to all nodes", v6: true, edit: func(p *packet) { udp(p); p.Dst = netip.MustParseAddr("ff02::1") }},
		{name: "to loopback from outside", edit: func(p *packet) { p.Dst = netip.MustParseAddr("127.0.0.5") }},
		{name: "to loopback from outside in IPv6", v6: true, edit: func(p *packet) { p.Dst = netip.IPv6Loopback() }},
		{name: "to port 0", edit: func(p *packet) { p.DstPort = 0 }},
		{name: "to UDP port 0", edit: func(p *packet) { udp(p); p.DstPort = 0 }},
		{name: "from port 0", edit: func(p *packet) { p.SrcPort = 0 }, kind: synScan},
		{name: "ICMP", edit: func(p *packet) { p.Proto = pktgen.ProtoICMP }},
		{name: "SCTP", edit: func(p *packet) { p.Proto = pktgen.ProtoSCTP }},
		{name: "another protocol", edit: func(p *packet) { p.Proto = 253 }},
	}
	seen := make(map[string]string) // by line
	want := make(map[string][]string)
	for i, c := range cases {
		port := base + i
		frames := w.frames(t, w.packet(port, c.v6, c.edit))
		if c.frames != nil {
			frames = c.frames(frames)
		}
		w.sendFrames(t, frames...)
		src, proto, opts := l.Scanner.Addr4(), "TCP", "not set"
		if c.v6 {
			src, opts = l.Scanner.Addr6(), "unknown"
		}
		if c.kind == udpScan {
			proto = "UDP"
		}
		if c.opts != "" {
			opts = c.opts
		}
		seen[fmt.Sprintf("port: [%d]", port)] = c.name
		if c.kind != "" {
			want[c.name] = []string{scanLine(src, proto, port, c.kind, opts)}
		}
	}
	if d := cmp.Diff(want, byPort(w.scans(t), seen)); d != "" {
		t.Errorf("by kind of packet (-want +got):\n%s", d)
	}
	for name, want := range map[string]uint64{
		"bad_checksum_total": 7, // six wrong or missing ones and the data offset
		"not_ours_total":     7,
	} {
		if got := counter(t, d, name); got < want {
			t.Errorf("%s is %d, want %d at least", name, got, want)
		}
	}
}

// byPort sorts lines by the name that their port has.
func byPort(lines []string, name map[string]string) map[string][]string {
	out := make(map[string][]string)
	for _, line := range lines {
		n := line
		for port, is := range name {
			if strings.Contains(line, port) {
				n = is
			}
		}
		out[n] = append(out[n], line)
	}
	return out
}

// noChecksum takes the checksum out of a UDP packet without IP options.
func noChecksum(f [][]byte) [][]byte {
	at := 14 + 20 + 6
	if binary.BigEndian.Uint16(f[0][12:]) == 0x86dd {
		at = 14 + 40 + 6
	}
	f[0][at], f[0][at+1] = 0, 0
	return f
}

func to(mac string) func([][]byte) [][]byte {
	return func(f [][]byte) [][]byte {
		a, _ := net.ParseMAC(mac)
		copy(f[0], a)
		return f
	}
}

// TestFlags sends every combination of TCP flags. PortSentry's four names and
// "Unknown Type" hold for what has neither ACK nor RST; of the rest only what
// nmap's ACK, window and Maimon scans send is a probe.
func TestFlags(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	w, _ := listen(t, l, map[string]string{"TCP_PORTS": "1000-1255"})
	var want []string
	for flags := range uint16(256) {
		p := w.packet(1000+int(flags), false, func(p *pktgen.Packet) { p.Flags = flags })
		w.sendPacket(t, p)
		if name := nameOf(flags); name != "" {
			want = append(want, scanLine(p.Src, "TCP", int(p.DstPort), name, "not set"))
		}
	}
	slices.Sort(want)
	if d := cmp.Diff(want, w.scans(t, l.Scanner.Addr4())); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func nameOf(flags uint16) string {
	const fin, syn, rst, psh, ack, urg, six = pktgen.FIN, pktgen.SYN, pktgen.RST, pktgen.PSH, pktgen.ACK, pktgen.URG, 0x3f
	bit := func(f uint16) int { return int(flags&f) / int(f) }
	switch flags & six {
	case syn:
		return synScan
	case fin:
		return "TCP FIN scan"
	case fin | psh | urg, syn | fin | psh | urg:
		return "TCP XMAS scan"
	case ack:
		return "TCP ACK/Window scan"
	case fin | ack:
		return "TCP Maimon scan"
	}
	switch {
	case flags == 0:
		return "TCP NULL scan"
	case flags&(ack|rst) != 0:
		return ""
	}
	return odd(bit(syn), bit(fin), bit(psh), bit(urg))
}

// TestSources sends from addresses that nobody can have. They are counted; what
// comes from our own is shown, as spared.
func TestSources(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	w, d := listen(t, l, map[string]string{"TCP_PORTS": "11"})
	martians := []string{
		"127.0.0.1", "127.0.0.53", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
		"10.77.255.255", "::", "::1", "ff02::1", "::ffff:10.77.0.9",
	}
	for _, m := range martians {
		src := netip.MustParseAddr(m)
		w.sendPacket(t, w.packet(11, src.Is6(), func(p *pktgen.Packet) { p.Src = src }))
	}
	lab.Wait(t, patience, "every martian counted", func() bool {
		return counter(t, d, "martians_total") == uint64(len(martians))
	})
	own := []netip.Addr{l.Host.Addr4(), l.Host.Addr6()}
	var want []string
	for _, src := range own {
		w.sendPacket(t, w.packet(11, src.Is6(), func(p *pktgen.Packet) { p.Src = src }))
		opts := "not set"
		if src.Is6() {
			opts = "unknown"
		}
		want = append(want, fmt.Sprintf("Scan from: [%s] (%[1]s) protocol: [TCP] port: [11] type: [TCP SYN/Normal scan] IP opts: [%s] "+
			"ignored: [true] triggered: [true] noblock: [true] blocked: [false]", src, opts))
	}
	if d := cmp.Diff(want, w.scans(t, own...)); d != "" {
		t.Errorf("from our own addresses (-want +got):\n%s", d)
	}
	if got := counter(t, d, "spared_total"); got != 4 { // and the two last ones
		t.Errorf("spared_total is %d, want 4", got)
	}
}
