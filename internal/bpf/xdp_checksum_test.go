package bpf_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

// A checksum that is wrong is one thing, one that a neighbour on this machine
// left to its card another: there stands the sum of the pseudo-header.
func TestTransportChecksums(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	for _, src := range []netip.Addr{from4, from6} {
		for _, p := range []pktgen.Packet{tcp(src, trap, syn), udp(src, trap)} {
			for n := range 64 {
				p.Payload = bytes.Repeat([]byte{0xff, 0xa5, byte(n)}, n)[:n*7%(n+1)]
				if n%10 == 0 {
					p.Payload = bytes.Repeat([]byte{byte(n), 0xfe}, 730)[:1300+n%3]
				}
				if p.Proto == pktgen.ProtoTCP {
					p.TCPOptions = []byte{2, 4, 5, 0xb4, 1, 3, 3, 7}[:n%3*4]
				}
				name := fmt.Sprintf("protocol %d, %d bytes from %v", p.Proto, len(p.Payload), src)
				p.BadChecksum = false
				b := frame(t, p)
				r.check(name, b, sighted)
				left := slices.Clone(b)
				leaveToCard(left, p)
				r.check(name+", left to the card", left, sighted)
				p.BadChecksum = true
				if wrong := frame(t, p); !slices.Equal(wrong, left) {
					r.check(name+", wrong", wrong, bad)
				}
				b[len(b)-1] ^= 0x40
				if len(p.Payload) > 0 {
					r.check(name+", damaged", b, bad)
				}
			}
		}
	}
}

// leaveToCard makes the checksum what it is before a card has computed it.
func leaveToCard(b []byte, p pktgen.Packet) {
	at := ethernet + ipv4Fixed
	if p.Src.Is6() {
		at = ethernet + ipv6Fixed
	}
	sum := uint32(p.Proto) + uint32(len(b)-at)
	for _, a := range [2]netip.Addr{p.Src, p.Dst} {
		raw := a.AsSlice()
		for i := 0; i < len(raw); i += 2 {
			sum += uint32(raw[i])<<8 | uint32(raw[i+1])
		}
	}
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	if at += 16; p.Proto == pktgen.ProtoUDP {
		at -= 10
	}
	b[at], b[at+1] = byte(sum>>8), byte(sum)
}
