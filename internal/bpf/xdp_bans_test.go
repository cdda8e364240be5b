package bpf_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

func prefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// ban puts one in force for an hour.
func (r *rig) ban(p netip.Prefix, strength bpf.Strength, protos bpf.Protos) {
	r.t.Helper()
	r.must(r.PutBans([]bpf.Ban{{Prefix: p, Strength: strength, Protos: protos, Until: time.Now().Add(time.Hour), Since: time.Now()}}))
}

// What each ban leaves its source, on a host without nftables and without
// connections.
func TestWhatBansDrop(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	const fullOnly, softToo, limitedToo = "f", "fs", "fsl"
	for _, family := range []struct {
		src                                  netip.Addr
		request, reply, unreachable, timeout byte
	}{{from4, 8, 0, 3, 11}, {from6, 128, 129, 1, 3}} {
		src := family.src
		sctp := tcp(src, 5060, 0)
		sctp.Proto = pktgen.ProtoSCTP
		data := frame(t, sctp)
		data[len(data)-20] = 0 // type of the first chunk: DATA
		other := tcp(src, 0, 0)
		other.Proto = 47
		within := frame(t, tcp(src, noTrap, syn))
		within = within[:len(within)-1]
		for _, c := range []struct {
			name  string
			frame []byte
			by    string // which bans drop it
		}{
			{"SYN to a free port", frame(t, tcp(src, noTrap, syn)), limitedToo},
			{"SYN to a trap", frame(t, tcp(src, trap, syn)), limitedToo},
			{"ACK without connection", frame(t, tcp(src, noTrap, ack)), limitedToo},
			{"RST without connection", frame(t, tcp(src, noTrap, rst)), limitedToo},
			{"datagram", frame(t, udp(src, noTrap)), limitedToo},
			{"answer to an unconnected socket", frame(t, udp(src, latePort+1)), "fl"}, // a limited one finds the socket
			{"echo request", icmp(t, src, family.request), softToo},
			{"echo reply", icmp(t, src, family.reply), fullOnly},
			{"unreachable", icmp(t, src, family.unreachable), fullOnly},
			{"time exceeded", icmp(t, src, family.timeout), fullOnly},
			{"SCTP INIT", frame(t, sctp), softToo},
			{"SCTP DATA", data, fullOnly},
			{"GRE", frame(t, other), fullOnly},
			{"ends inside TCP", within, fullOnly},
		} {
			name := func(ban string) string { return fmt.Sprintf("%s from %v, %s ban", c.name, src, ban) }
			want := func(b byte, dropped outcome) outcome {
				for i := range c.by {
					if c.by[i] == b {
						return dropped
					}
				}
				return nothing
			}
			r.ban(prefix(src), bpf.Full, bpf.BanAll)
			r.check(name("full"), c.frame, want('f', full))
			r.ban(prefix(src), bpf.Soft, bpf.BanAll)
			r.check(name("soft"), c.frame, want('s', soft))
			r.ban(prefix(src), bpf.Limited, bpf.BanAll)
			r.check(name("limited"), c.frame, want('l', narrow))
			r.ban(prefix(src), bpf.Pardon, bpf.BanAll)
			got := r.run(c.frame)
			r.must(r.DeleteBan(prefix(src)))
			if got != pass || r.run(c.frame) != pass {
				t.Errorf("%s dropped without a ban", c.name)
			}
			r.counted()
		}
	}
	// Neighbour discovery passes every ban.
	r.ban(prefix(from6), bpf.Full, bpf.BanAll)
	for kind := byte(133); kind <= 136; kind++ {
		r.check(fmt.Sprintf("neighbour discovery %d", kind), icmp(t, from6, kind), nothing)
	}
	r.check("redirect", icmp(t, from6, 137), full)
}

// A soft ban is about some protocols.
func TestScope(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	for _, src := range []netip.Addr{from4, from6} {
		echo := byte(8)
		if src.Is6() {
			echo = 128
		}
		packets := [3][]byte{frame(t, tcp(src, noTrap, syn)), frame(t, udp(src, noTrap)), icmp(t, src, echo)}
		for protos := range bpf.BanAll + 1 {
			r.ban(prefix(src), bpf.Soft, protos)
			for i, b := range packets {
				want := uint32(pass)
				if protos>>i&1 != 0 {
					want = drop
				}
				r.verdictOf(fmt.Sprintf("protocols %03b, packet %d from %v", protos, i, src), b, want)
			}
		}
		// Fragments: no port is known of most of them.
		for i, p := range []pktgen.Packet{tcp(src, noTrap, syn), udp(src, noTrap)} {
			p.Payload, p.FragmentSize = make([]byte, 100), 48
			pieces, err := p.Frames(wire)
			r.must(err)
			r.ban(prefix(src), bpf.Soft, bpf.BanTCP<<i)
			r.verdictOf(fmt.Sprintf("first fragment of protocol %d from %v", p.Proto, src), pieces[0], drop)
			r.ban(prefix(src), bpf.Soft, bpf.BanUDP>>i)
			r.verdictOf(fmt.Sprintf("first fragment of protocol %d from %v, the other banned", p.Proto, src), pieces[0], pass)
			r.ban(prefix(src), bpf.Full, bpf.BanAll)
			for _, b := range pieces {
				r.verdictOf("fragment, full ban", b, drop)
			}
		}
		r.must(r.DeleteBan(prefix(src)))
	}
}

// A ban is about an address, or an IPv6 network, until it ends.
func TestWhoIsBanned(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	syn4 := func(a string) []byte { return frame(t, tcp(netip.MustParseAddr(a), noTrap, syn)) }
	r.ban(prefix(from4), bpf.Full, bpf.BanAll)
	r.verdictOf("banned", syn4("203.0.113.7"), drop)
	r.verdictOf("its neighbour", syn4("203.0.113.8"), pass)
	r.verdictOf("the same as an IPv4-mapped address", syn4("::ffff:203.0.113.7"), pass)
	r.verdictOf("the same as an IPv4-compatible address", syn4("::203.0.113.7"), pass)

	network := netip.MustParsePrefix("2001:db8:2::/64")
	r.ban(network, bpf.Full, bpf.BanAll)
	r.verdictOf("in the network", syn4("2001:db8:2:0:ffff::1"), drop)
	r.verdictOf("the next network", syn4("2001:db8:2:1::1"), pass)
	r.ban(prefix(from6), bpf.Pardon, bpf.BanAll)
	r.verdictOf("pardoned in a banned network", frame(t, tcp(from6, noTrap, syn)), drop)
	b, there, err := r.Ban(network)
	if err != nil || !there || b.Dropped != 2 || b.Strength != bpf.Full {
		t.Errorf("%+v, %v, %v: want 2 dropped", b, there, err)
	}
	// Of two bans the stronger holds, whichever of them it is.
	for _, c := range []struct {
		address, network           bpf.Strength
		addressAbout, networkAbout bpf.Protos
		syn, datagram              uint32
	}{
		{bpf.Soft, bpf.Full, bpf.BanTCP, bpf.BanAll, drop, drop},
		{bpf.Full, bpf.Soft, bpf.BanAll, bpf.BanTCP, drop, drop},
		{bpf.Soft, bpf.Soft, bpf.BanTCP, bpf.BanUDP, drop, drop},
		{bpf.Soft, bpf.Pardon, bpf.BanTCP, bpf.BanAll, drop, pass},
		{bpf.Pardon, bpf.Soft, bpf.BanAll, bpf.BanUDP, pass, drop},
		{bpf.Pardon, bpf.Pardon, bpf.BanAll, bpf.BanAll, pass, pass},
	} {
		r.ban(prefix(from6), c.address, c.addressAbout)
		r.ban(network, c.network, c.networkAbout)
		r.verdictOf(fmt.Sprintf("%+v, SYN", c), frame(t, tcp(from6, noTrap, syn)), c.syn)
		r.verdictOf(fmt.Sprintf("%+v, datagram", c), frame(t, udp(from6, noTrap)), c.datagram)
	}
	r.must(r.DeleteBan(prefix(from6)))
	r.ban(network, bpf.Full, bpf.BanAll)

	r.must(r.PutBans([]bpf.Ban{{Prefix: prefix(from4), Strength: bpf.Full, Protos: bpf.BanAll, Until: time.Now().Add(20 * time.Millisecond)}}))
	bpf.Eventually(t, "the ban ends by itself", func() bool { return r.run(syn4("203.0.113.7")) == pass })
	left, err := r.Sweep()
	if _, there, _ := r.Ban(prefix(from4)); err != nil || left != 1 || there {
		t.Errorf("swept: %d left, %v, the ended one there: %v", left, err, there)
	}
	r.must(r.PutBans([]bpf.Ban{{Prefix: prefix(from4), Strength: bpf.Full, Protos: bpf.BanAll}}))
	r.verdictOf("banned for good", syn4("203.0.113.7"), drop)
	r.must(r.DeleteBan(prefix(from4)))
	r.verdictOf("unbanned", syn4("203.0.113.7"), pass)
}

// What is not for us is dropped under a full ban alone.
func TestBansOfTraffic(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	for _, c := range []struct{ src, dst netip.Addr }{{from4, other4}, {from6, other6}} {
		p := tcp(c.src, noTrap, syn)
		p.Dst = c.dst
		b := frame(t, p)
		for strength, want := range []uint32{pass, pass, pass, drop} {
			r.ban(prefix(c.src), bpf.Strength(strength), bpf.BanAll)
			r.verdictOf(fmt.Sprintf("%v, strength %d", c.dst, strength), b, want)
		}
	}
}

// Whom we spare is never dropped, only told of.
func TestSpared(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, TCP: bpf.BanAll, UDP: bpf.BanAll})
	r.must(r.SetSpare([]netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:2::/48")}))
	for _, src := range []netip.Addr{from4, from6} {
		b := frame(t, tcp(src, trap, syn))
		r.check("spared", b, sighted)
		for strength := range bpf.Full + 1 {
			r.ban(prefix(src), strength, bpf.BanAll)
			r.check("banned and spared", b, sighted)
			r.check("banned and spared, no trap", frame(t, tcp(src, noTrap, syn)), nothing)
		}
	}
	r.must(r.SetSpare([]netip.Prefix{prefix(from6)}))
	r.check("spared no longer", frame(t, tcp(from4, trap, syn)), full)
	r.check("spared still", frame(t, tcp(from6, trap, syn)), sighted)
}

// What user space has said stands in front of what the program would do.
func TestDecided(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, TCP: bpf.BanAll, UDP: bpf.BanAll})
	hit := frame(t, tcp(from4, trap, syn))
	r.ban(prefix(from4), bpf.Pardon, 0)
	r.check("pardoned", hit, sighted)
	r.must(r.DeleteBan(prefix(from4)))
	r.check("no longer", hit, banned)
	r.check("and now banned", hit, soft)
	r.ban(prefix(from4), bpf.Pardon, 0)
	r.check("pardoned again", hit, sighted)
	r.ban(prefix(from4), bpf.Soft, bpf.BanUDP)
	r.check("a ban about something else", hit, sighted)
}

// Of what user space has to read, a soft ban drops what may begin something,
// unless nftables looks at it again.
func TestSoftBanOfUnread(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	chain := tcp(from6, noTrap, ack)
	chain.ExtHeaders = slices.Repeat([]pktgen.ExtHeader{{Type: pktgen.DestOptions, Len: 8}}, 7)
	behind := tcp(from6, noTrap, syn)
	behind.ExtHeaders = []pktgen.ExtHeader{{Type: pktgen.FragmentHdr, Len: 8}, {Type: pktgen.DestOptions, Len: 8}}
	esp := tcp(from6, noTrap, syn)
	esp.ExtHeaders = []pktgen.ExtHeader{{Type: 50, Len: 8}}
	pieces := tcp(from4, noTrap, syn)
	pieces.Payload, pieces.FragmentSize = make([]byte, 100), 48
	fragments, err := pieces.Frames(wire)
	r.must(err)
	for _, c := range []struct {
		name    string
		frame   []byte
		verdict uint32
	}{
		{"first fragment", fragments[0], drop},
		{"later fragment", fragments[1], pass},
		{"long chain", frame(t, chain), drop},
		{"options behind a fragment header", frame(t, behind), drop},
		{"ESP", frame(t, esp), pass},
	} {
		for _, src := range []netip.Addr{from4, from6} {
			r.ban(prefix(src), bpf.Soft, bpf.BanTCP)
		}
		r.rules(bpf.Rules{})
		r.verdictOf(c.name, c.frame, c.verdict)
		r.rules(bpf.Rules{Nftables: true})
		r.verdictOf(c.name+", nftables looks again", c.frame, pass)
		for _, src := range []netip.Addr{from4, from6} {
			r.ban(prefix(src), bpf.Limited, bpf.BanAll)
		}
		r.verdictOf(c.name+", limited", c.frame, pass)
	}
}

// The answer to a question is one in pieces as well.
func TestAnswerInPieces(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, UDP: bpf.BanAll})
	for _, src := range []netip.Addr{from4, from6} {
		r.ban(prefix(src), bpf.Soft, bpf.BanAll)
		for port, want := range map[uint16]uint32{latePort + 1: pass, noTrap: drop} {
			p := udp(src, port)
			p.SrcPort, p.FragmentSize, p.Payload = 53, 512, bytes.Repeat([]byte("x"), 2000)
			pieces, err := p.Frames(wire)
			r.must(err)
			r.verdictOf(fmt.Sprintf("%v to %d, first", src, port), pieces[0], want)
			r.verdictOf("later", pieces[1], pass)
		}
	}
}
