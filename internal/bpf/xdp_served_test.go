package bpf_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

// Who is there is asked of the very sockets.
func TestServed(t *testing.T) {
	armed := bpf.Rules{Sense: true, TCP: bpf.BanAll, UDP: bpf.BanAll}
	r := newRig(t, bpf.SensorOptions{}, armed)
	port := fmt.Sprint(trap)
	bpf.Listening(t, "tcp", ":"+port, 0)
	datagrams, err := net.ListenPacket("udp", ":"+port)
	r.must(err)
	defer datagrams.Close()
	for i, src := range []func(int) netip.Addr{source, source6} {
		for _, flags := range []uint16{syn, fin, 0, ack, fin | ack, syn | fin} {
			r.check("to a listener", frame(t, tcp(src(1), trap, flags)), served)
		}
		r.check("datagram to a socket", frame(t, udp(src(1), trap)), served)

		inScope := armed
		inScope.TrapServed = true
		r.rules(inScope)
		r.check("-S, FIN", frame(t, tcp(src(2), trap, fin)), served)
		r.check("-S, ACK", frame(t, tcp(src(2), trap, ack)), served)
		r.check("-S, SYN", frame(t, tcp(src(2), trap, syn)), banned)
		r.check("-S, datagram", frame(t, udp(src(3), trap)), banned)
		r.rules(armed)

		r.ban(prefix(src(4)), bpf.Limited, bpf.BanAll)
		r.check("limited, to a listener", frame(t, tcp(src(4), trap, syn)), served)
		r.check("limited, datagram to a socket", frame(t, udp(src(4), trap)), served)
		r.check("limited, to nobody", frame(t, tcp(src(4), noTrap, syn)), narrow)
		r.check("limited, ping", icmp(t, src(4), []byte{8, 128}[i]), nothing)
		r.ban(prefix(src(4)), bpf.Soft, bpf.BanAll)
		r.check("soft, to a listener", frame(t, tcp(src(4), trap, syn)), soft)
		r.check("soft, datagram to a socket", frame(t, udp(src(4), trap)), soft)
	}
}

// A listener at one address is nobody at another.
func TestServedAtAnAddress(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	bpf.Command(t, "ip addr add 198.51.100.1/32 dev lo", "ip addr add 2001:db8:1::1/128 dev lo nodad")
	bpf.Listening(t, "tcp4", own4.String()+":"+fmt.Sprint(trap), 0)
	bpf.Listening(t, "tcp6", "[::1]:"+fmt.Sprint(trap), 0)
	home4, home6 := tcp(from4, trap, syn), tcp(from6, trap, syn)
	home4.Dst, home6.Dst = netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	r.check("there", frame(t, tcp(from4, trap, syn)), served)
	r.check("not there", frame(t, home4), sighted)
	r.check("there, IPv6", frame(t, home6), served)
	r.check("not there, IPv6", frame(t, tcp(from6, trap, syn)), sighted)
}

const trapMark = 0x2073 // host.TrapMark

// Traps of our own are nobody.
func TestOwnTraps(t *testing.T) {
	rules := bpf.Rules{Sense: true}
	r := newRig(t, bpf.SensorOptions{}, rules)
	at := ":" + fmt.Sprint(trap)
	bpf.Listening(t, "tcp", at, trapMark)
	c, err := net.ListenPacket("udp", at)
	r.must(err)
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	r.must(err)
	r.must(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, trapMark) }))
	r.must(err)
	for _, src := range []netip.Addr{from4, from6} {
		rules.OwnTraps = false
		r.rules(rules)
		r.check("TCP", frame(t, tcp(src, trap, syn)), served)
		r.check("UDP", frame(t, udp(src, trap)), served)
		rules.OwnTraps = true
		r.rules(rules)
		r.check("TCP, own", frame(t, tcp(src, trap, syn)), sighted)
		r.check("UDP, own", frame(t, udp(src, trap)), sighted)
	}
}

// A connection outlives a soft ban, and a limited one.
func TestConnectionUnderBan(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	for _, home := range []string{"127.0.0.1", "::1"} {
		l := bpf.Listening(t, "tcp", net.JoinHostPort(home, fmt.Sprint(trap)), 0)
		client, err := net.Dial("tcp", l.Addr().String())
		r.must(err)
		defer client.Close()
		server, err := l.Accept()
		r.must(err)
		defer server.Close()
		from := netip.MustParseAddrPort(client.LocalAddr().String())
		p := tcp(from.Addr(), trap, ack|psh)
		p.Dst, p.SrcPort = from.Addr(), from.Port()
		opening, stranger := p, p
		opening.Flags = syn
		stranger.SrcPort ^= 1
		for _, strength := range []bpf.Strength{bpf.Soft, bpf.Limited} {
			r.ban(prefix(from.Addr()), strength, bpf.BanAll)
			r.verdictOf("its connection", frame(t, p), pass)
			p.Flags = rst
			r.verdictOf("its connection, RST", frame(t, p), pass)
			p.Flags = ack | psh
		}
		r.verdictOf("limited, a new one to a listener", frame(t, opening), pass)
		r.ban(prefix(from.Addr()), bpf.Soft, bpf.BanAll)
		r.verdictOf("soft, a SYN on top of it", frame(t, opening), drop)
		r.verdictOf("soft, no connection of that port", frame(t, stranger), drop)
		r.ban(prefix(from.Addr()), bpf.Full, bpf.BanAll)
		r.verdictOf("full", frame(t, p), drop)
	}
}

// What connection tracking knows is no probe.
func TestConntrack(t *testing.T) {
	armed := bpf.Rules{Sense: true, TCP: bpf.BanAll, UDP: bpf.BanAll}
	r := newRig(t, bpf.SensorOptions{}, armed)
	for i, c := range []struct {
		name, entry string // seen from the source of the packet: %s its address, ours
		flags       uint16
		want        outcome // to a trap
		belongs     bool    // to what a soft ban spares
	}{
		{"none, ACK", "", ack, sighted, false},
		{"not answered", "--orig-src %[1]s --orig-dst %[2]s --sport 50123 --dport 23", ack, sighted, false},
		{"answered", "--orig-src %[1]s --orig-dst %[2]s --sport 50123 --dport 23 -u SEEN_REPLY", ack, sighted, true},
		{"an answer to us", "--orig-src %[2]s --orig-dst %[1]s --sport 23 --dport 50123", ack, reply, true},
		{"an answer to somebody behind us", "--orig-src 10.0.0.5 --orig-dst %[1]s --sport 23 --dport 50123 --src-nat %[2]s", ack, reply, true},
		{"translated", "--orig-src %[1]s --orig-dst %[2]s --sport 50123 --dport 23 --dst-nat 10.0.0.5", syn, reply, true},
	} {
		for _, proto := range []uint8{pktgen.ProtoTCP, pktgen.ProtoUDP} {
			src := source(i)
			p := tcp(src, trap, c.flags)
			p.Proto = proto
			kind := "-p tcp --state ESTABLISHED"
			want := c.want
			if proto == pktgen.ProtoUDP {
				kind = "-p udp"
				if want == sighted {
					want = banned
				}
			}
			if c.entry != "" {
				bpf.Command(t, "conntrack -I -t 100 "+kind+" "+fmt.Sprintf(c.entry, src, own4))
			}
			name := fmt.Sprintf("%s, protocol %d", c.name, proto)
			r.check(name, frame(t, p), want)
			r.ban(prefix(src), bpf.Soft, bpf.BanAll)
			verdict := uint32(drop)
			if c.belongs && (proto == pktgen.ProtoUDP || c.flags != syn) {
				verdict = pass
			}
			r.verdictOf(name+", soft ban", frame(t, p), verdict)
			r.must(r.DeleteBan(prefix(src)))
			r.events()
			r.counted()
		}
	}
	elsewhere := armed
	elsewhere.Elsewhere = true
	r.rules(elsewhere)
	r.check("who is there cannot be known", frame(t, tcp(source(100), trap, syn)), asked)
	r.check("the same of UDP", frame(t, udp(source(100), trap)), asked)
	elsewhere.Sense = false
	r.rules(elsewhere)
	r.check("and nobody asks", frame(t, tcp(source(100), trap, syn)), nothing)
}

// What a socket of ours has connected to may answer it at any port of ours, even
// where connections are not tracked.
func TestConnectedDatagrams(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, UDP: bpf.BanAll})
	for _, home := range []string{"127.0.0.1", "::1"} {
		local, err := net.ResolveUDPAddr("udp", net.JoinHostPort(home, fmt.Sprint(noTrap)))
		r.must(err)
		server, err := net.ResolveUDPAddr("udp", net.JoinHostPort(home, "53"))
		r.must(err)
		c, err := net.DialUDP("udp", local, server)
		r.must(err)
		defer c.Close()
		from := server.AddrPort().Addr().Unmap()
		p := udp(from, noTrap)
		p.Dst, p.SrcPort = from, 53
		stranger := p
		stranger.SrcPort = 54
		r.ban(prefix(from), bpf.Soft, bpf.BanAll)
		r.verdictOf("its answer", frame(t, p), pass)
		r.verdictOf("from another port", frame(t, stranger), drop)
	}
}
