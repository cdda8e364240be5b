package bpf_test

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

const transmit = 3 // XDP_TX

// verify challenges whoever is seen, verifyArmed whoever is banned for it.
var (
	verify      = bpf.Rules{Sense: true, Verify: true}
	verifyArmed = bpf.Rules{Sense: true, Verify: true, TCP: bpf.BanAll, UDP: bpf.BanAll}
)

// back is the Ethernet header of answers.
var back = &pktgen.Link{Src: wire.Dst, Dst: wire.Src}

// exchange gives the program a frame, and gives what it makes of it.
func (r *rig) exchange(frame []byte) (verdict uint32, out []byte) {
	r.t.Helper()
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64)}
	verdict, err := r.Program().Run(&o)
	r.must(err)
	return verdict, o.DataOut
}

// answer is the packet that answers p, with what every answer has.
func answer(p pktgen.Packet) pktgen.Packet {
	return pktgen.Packet{
		Src: p.Dst, Dst: p.Src, Proto: p.Proto, SrcPort: p.DstPort, DstPort: p.SrcPort, TTL: 64, DF: true,
		VLANs: p.VLANs, QinQ: p.QinQ,
	}
}

// seqAt is the sequence number of a TCP packet without options or headers
// before TCP's.
func seqAt(b []byte, p pktgen.Packet) uint32 {
	at := ethernet + 4*len(p.VLANs) + ipv4Fixed
	if !p.Src.Is4() {
		at += ipv6Fixed - ipv4Fixed
	}
	return binary.BigEndian.Uint32(b[at+4:])
}

// challenged sends the SYN p and gives the number of the SYN-ACK.
func (r *rig) challenged(p pktgen.Packet) (number uint32) {
	r.t.Helper()
	verdict, out := r.exchange(frame(r.t, p))
	if verdict != transmit {
		r.t.Fatalf("SYN from %v: verdict %d", p.Src, verdict)
	}
	return seqAt(out, p)
}

// acknowledge is p with flags in the place of SYN, and the number brought back.
func acknowledge(p pktgen.Packet, number uint32, flags uint16, payload string) pktgen.Packet {
	p.Flags, p.Seq, p.Ack, p.Payload = flags, p.Seq+1, number+1, []byte(payload)
	return p
}

// A SYN-ACK byte for byte: the package that builds it here shares nothing with
// the program.
func TestSynAck(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, verify)
	options := []byte{2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7}
	for _, c := range []struct {
		name   string
		change func(p *pktgen.Packet)
		padTo  int
	}{
		{"plain", func(p *pktgen.Packet) {}, 0},
		{"as on a wire", func(p *pktgen.Packet) {}, 60},
		{"long padding", func(p *pktgen.Packet) {}, 200},
		{"ECN", func(p *pktgen.Packet) { p.Flags |= ece | cwr }, 0},
		{"highest number", func(p *pktgen.Packet) { p.Seq = 0xffffffff }, 0},
		{"options", func(p *pktgen.Packet) { p.TCPOptions = options }, 0},
		{"data", func(p *pktgen.Packet) { p.Payload = bytes.Repeat([]byte("x"), 1000) }, 0},
		{"odd data", func(p *pktgen.Packet) { p.Payload = []byte("x") }, 0},
		{"options and data", func(p *pktgen.Packet) { p.TCPOptions, p.Payload = options, []byte("GET /") }, 0},
		{"tag", func(p *pktgen.Packet) { p.VLANs = []uint16{7} }, 0},
		{"tag, as on a wire", func(p *pktgen.Packet) { p.VLANs = []uint16{7} }, 60},
		{"two tags", func(p *pktgen.Packet) { p.VLANs, p.QinQ = []uint16{7, 0xe008}, true }, 0},
		{"two tags, options and data", func(p *pktgen.Packet) {
			p.VLANs, p.TCPOptions, p.Payload = []uint16{7, 8}, options, []byte("GET /")
		}, 0},
	} {
		for _, src := range []netip.Addr{from4, from6} {
			p := tcp(src, trap, syn)
			p.Seq, p.Window, p.TTL, p.IPID = 0x12345678, 1024, 37, 99
			c.change(&p)
			in := frame(t, p)
			for len(in) < c.padTo {
				in = append(in, 0xee)
			}
			verdict, out := r.exchange(in)
			if verdict != transmit {
				t.Errorf("%s from %v: verdict %d", c.name, src, verdict)
				continue
			}
			a := answer(p)
			a.Flags, a.Seq, a.Ack, a.Window = syn|ack, seqAt(out, p), p.Seq+1, 64240
			want, err := a.AppendTo(nil, back)
			if err != nil {
				t.Fatal(err)
			}
			for len(want) < min(60, len(in)) {
				want = append(want, 0)
			}
			if !bytes.Equal(out, want) {
				t.Errorf("%s from %v:\n got %x\nwant %x", c.name, src, out, want)
			}
			// What came is told, not what is sent.
			if all := r.events(); len(all) != 1 || all[0].What != bpf.WhatProbe || int(all[0].OptionsLen) != len(p.TCPOptions) ||
				!bytes.Equal(all[0].Options[:all[0].OptionsLen], p.TCPOptions) || int(all[0].Length) != len(in) {
				t.Errorf("%s from %v: told %+v", c.name, src, all)
			}
			if got := r.counted(); got != (bpf.Tally{Sighted: 1, Events: 1, Challenged: 1}) {
				t.Errorf("%s from %v: %+v", c.name, src, got)
			}
		}
	}
}

// What cannot or must not be answered goes its way as it came.
func TestNoSynAck(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, verify)
	all, everybody := netip.MustParseAddr("ff02::1"), netip.MustParseAddr("255.255.255.255")
	from := func(a netip.Addr) func(p *pktgen.Packet) { return func(p *pktgen.Packet) { p.Src = a } }
	none := func(*pktgen.Packet) {}
	for _, c := range []struct {
		name   string
		src    netip.Addr
		change func(p *pktgen.Packet)
		bend   func(b []byte) []byte
	}{
		{"IP options", from4, func(p *pktgen.Packet) { p.IPOptions = []byte{7, 7, 4, 0, 0, 0, 0} }, nil},
		{"extension header", from6, func(p *pktgen.Packet) { p.ExtHeaders = []pktgen.ExtHeader{{Type: pktgen.DestOptions, Len: 8}} }, nil},
		{"from nowhere", from4, from(netip.IPv4Unspecified()), nil},
		{"from nowhere", from6, from(netip.IPv6Unspecified()), nil},
		{"from loopback", from4, from(netip.MustParseAddr("127.0.0.9")), nil},
		{"from loopback", from6, from(netip.IPv6Loopback()), nil},
		{"from a group", from4, from(netip.MustParseAddr("224.0.0.1")), nil},
		{"from a group", from6, from(all), nil},
		{"from everybody", from4, from(everybody), nil},
		{"from itself", from4, from(own4), nil},
		{"from itself", from6, from(own6), nil},
		{"to everybody's card", from4, none, func(b []byte) []byte { copy(b, "\xff\xff\xff\xff\xff\xff"); return b }},
		{"cut short", from4, func(p *pktgen.Packet) { p.Payload = []byte("0123456789") }, func(b []byte) []byte { return b[:len(b)-1] }},
		{"cut short", from6, func(p *pktgen.Packet) { p.Payload = []byte("0123456789") }, func(b []byte) []byte { return b[:len(b)-1] }},
	} {
		p := tcp(c.src, trap, syn)
		c.change(&p)
		in := frame(t, p)
		if c.bend != nil {
			in = c.bend(in)
		}
		verdict, out := r.exchange(in)
		if verdict != pass || !bytes.Equal(in, out) {
			t.Errorf("%s, %v: verdict %d, frame changed: %v", c.name, p.Src, verdict, !bytes.Equal(in, out))
		}
		if got := r.counted(); got.Sighted+got.Bad != 1 || got.Challenged != 0 || got.Unchallenged != got.Sighted {
			t.Errorf("%s, %v: %+v", c.name, p.Src, got)
		}
	}
}

// Who is challenged: not one who is spared or served, not for a port that is no trap, and not where the packet is on its way to somebody else.
func TestWhomIsAsked(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, verify)
	other, spared := tcp(from4, trap, syn), tcp(source(1), trap, syn)
	other.Dst = other4
	r.must(r.SetSpare([]netip.Prefix{netip.PrefixFrom(source(1), 32)}))
	r.verdictOf("no trap", frame(t, tcp(from4, noTrap, syn)), pass)
	r.verdictOf("somebody else's", frame(t, other), pass)
	r.verdictOf("spared", frame(t, spared), pass)
	r.verdictOf("UDP", frame(t, udp(from4, trap)), pass)
	r.verdictOf("FIN", frame(t, tcp(from4, trap, fin)), pass)
	r.verdictOf("late port", frame(t, tcp(from4, latePort, syn)), transmit)

	// Whoever is banned, entirely too: traps look open, or what does not would show
	// which packet was too much.
	for _, strength := range []bpf.Strength{bpf.Pardon, bpf.Limited, bpf.Soft, bpf.Full} {
		src := source(2 + int(strength))
		r.must(r.PutBans([]bpf.Ban{{Prefix: netip.PrefixFrom(src, 32), Strength: strength, Protos: bpf.BanAll}}))
		r.verdictOf("banned", frame(t, tcp(src, trap, syn)), transmit)
	}
	cutOff := source(2 + int(bpf.Full))
	away := tcp(cutOff, trap, syn)
	away.Dst = other4
	r.verdictOf("cut off, ACK", frame(t, tcp(cutOff, trap, ack)), drop)
	r.verdictOf("cut off, no trap", frame(t, tcp(cutOff, noTrap, syn)), drop)
	r.verdictOf("cut off, somebody else's", frame(t, away), drop)

	r.rules(verifyArmed)
	r.verdictOf("first SYN", frame(t, tcp(from4, trap, syn)), transmit)
	r.verdictOf("second SYN", frame(t, tcp(from4, trap, syn)), transmit)
	r.verdictOf("no trap, banned", frame(t, tcp(from4, noTrap, syn)), drop)

	served := verifyArmed
	served.TrapServed = true
	listener := bpf.Listening(t, "tcp4", "0.0.0.0:23", 0)
	r.verdictOf("served", frame(t, tcp(source(9), trap, syn)), pass)
	r.verdictOf("served and banned", frame(t, tcp(from4, trap, syn)), drop)
	r.rules(served)
	r.verdictOf("a trap all the same", frame(t, tcp(source(9), trap, syn)), drop)
	r.verdictOf("served and cut off", frame(t, tcp(cutOff, trap, syn)), drop)
	listener.Close()
	r.rules(bpf.Rules{Sense: true})
	r.verdictOf("off", frame(t, tcp(source(10), trap, syn)), pass)
}

// sip24 is SipHash-2-4 of whole words.
func sip24(k [2]uint64, m ...uint64) uint64 {
	v0, v1, v2, v3 := k[0]^0x736f6d6570736575, k[1]^0x646f72616e646f6d, k[0]^0x6c7967656e657261, k[1]^0x7465646279746573
	rounds := func(n int) {
		for range n {
			v0, v2 = v0+v1, v2+v3
			v1, v3 = bits.RotateLeft64(v1, 13)^v0, bits.RotateLeft64(v3, 16)^v2
			v0 = bits.RotateLeft64(v0, 32)
			v2, v0 = v2+v1, v0+v3
			v1, v3 = bits.RotateLeft64(v1, 17)^v2, bits.RotateLeft64(v3, 21)^v0
			v2 = bits.RotateLeft64(v2, 32)
		}
	}
	for _, w := range append(m, uint64(len(m)*8)<<56) {
		v3 ^= w
		rounds(2)
		v0 ^= w
	}
	v2 ^= 0xff
	rounds(4)
	return v0 ^ v1 ^ v2 ^ v3
}

// number is the cookie of p in a slot of time.
func number(keys [2][2]uint64, key uint8, p pktgen.Packet, slot uint64) uint32 {
	var m []uint64
	for _, a := range [][16]byte{p.Src.As16(), p.Dst.As16()} {
		m = append(m, binary.NativeEndian.Uint64(a[:8]), binary.NativeEndian.Uint64(a[8:]))
	}
	h := sip24(keys[key], append(m, uint64(p.SrcPort)<<48|uint64(p.DstPort)<<32|slot&0xffffffff)...)
	return uint32(h)&^3 | uint32(key)<<1 | uint32(slot)&1
}

// A number is good in the slot of time it was made in and the next.
func TestLifeOfCookie(t *testing.T) {
	// The test vector of eight bytes of SipHash's authors.
	if got := sip24([2]uint64{0x0706050403020100, 0x0f0e0d0c0b0a0908}, 0x0706050403020100); got != 0x93f5f5799a932462 {
		t.Fatalf("SipHash: %x", got)
	}
	r := newRig(t, bpf.SensorOptions{}, verify)
	keys, key := r.CookieKeys()
	for _, src := range []netip.Addr{from4, from6} {
		p := tcp(src, trap, syn)
		try := func() bool {
			slot := bpf.Monotonic() / (bpf.CookieLife / 2)
			made := r.challenged(p)
			r.counted()
			verified := make(map[int64]uint64)
			for ago := int64(-1); ago <= 3; ago++ {
				r.run(frame(t, acknowledge(p, number(keys, key, p, slot-uint64(ago)), ack, "")))
				verified[ago] = r.counted().Verified
			}
			if now := bpf.Monotonic(); now/(bpf.CookieLife/2) != slot || now%(bpf.CookieLife/2) < uint64(100*time.Millisecond) {
				return false // the slot, or the program's coarse clock in it, may have changed meanwhile
			}
			if want := number(keys, key, p, slot); made != want {
				t.Errorf("%v: %x, want %x", src, made, want)
			}
			for ago, n := range verified {
				if want := uint64(0); n != want && ago != 0 && ago != 1 || n != 1 && (ago == 0 || ago == 1) {
					t.Errorf("%v: %d slots ago: %d verified", src, ago, n)
				}
			}
			return true
		}
		bpf.Eventually(t, "no change of slot", try)
	}
}
