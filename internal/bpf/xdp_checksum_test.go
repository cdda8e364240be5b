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
				partial(left)
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
