package host

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func in64(net uint32, host byte) netip.Addr {
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8, 15: host}
	binary.BigEndian.PutUint32(b[4:], net)
	return netip.AddrFrom16(b)
}

// Whether a peer lies in a /64 is the same whoever has come and gone.
func TestPeerNets(t *testing.T) {
	p := &Peers{book: newPeerBook(20, time.Minute)}
	rng := rand.New(rand.NewPCG(1, 2))
	now := time.Unix(1_795_252_442, 0)
	for range 2000 {
		now = now.Add(time.Duration(rng.IntN(20)) * time.Second)
		p.book.see(in64(rng.Uint32N(8), byte(1+rng.IntN(4))), now)
		p.book.see(netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(8))}), now)
		if rng.IntN(3) == 0 {
			p.book.endRound(now)
		}
		for net := range uint32(8) {
			want := false
			for a := range p.book.seen {
				want = want || netip.PrefixFrom(in64(net, 0), 64).Contains(a)
			}
			if got := p.Any(netip.PrefixFrom(in64(net, 0), 64)); got != want {
				t.Fatalf("network %d: %v, want %v of %v", net, got, want, p.book.seen)
			}
		}
	}
}

// BenchmarkPeersAny: the question that two forged addresses of a /64 bring up.
func BenchmarkPeersAny(b *testing.B) {
	p := &Peers{book: newPeerBook(maxPeers, time.Minute)}
	for i := range uint32(maxPeers) {
		p.book.see(in64(i, 1), time.Now())
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Any(netip.PrefixFrom(in64(1<<31, 0), 64))
	}
}
