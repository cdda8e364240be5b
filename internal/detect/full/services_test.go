package full

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"portsentry/internal/detect"
)

// Whatever was added is known, however many there are; and of those that were not, no
// more are taken for known than the comment of services says.
func TestServices(t *testing.T) {
	const rounds = 5_000
	rng := rand.New(rand.NewPCG(3, 4))
	var wrong [64]int // by the number that are in it
	for range rounds {
		var s services
		var in []uint16
		for n := range wrong {
			p := uint16(rng.Uint32()) >> (16 - printLen)
			if s.has(p) {
				wrong[n]++
			}
			s.add(p)
			in = append(in, p)
			for _, p := range in {
				if !s.has(p) {
					t.Fatalf("%#x is not known of %#x in %#x", p, in, s)
				}
			}
		}
	}
	if wrong[0] != 0 {
		t.Error("the empty set knows a service")
	}
	five := 0
	for _, n := range wrong[:5] {
		five += n
	}
	if got := float64(five) / rounds; got > .001 {
		t.Errorf("of five services one is taken for another in %.4f of the cases", got)
	}
	// A bit of 64 for each: the share of bits that n have set.
	bits := 0.0
	for n, got := range wrong {
		if got := float64(got) / rounds; got > bits*1.1+.01 {
			t.Errorf("with %d services %.3f of the others are taken for one of them, and %.3f by a bit of 64 each", n, got, bits)
		}
		bits += (1 - bits) / 64
	}
	var s services
	for range 3 {
		s.add(7)
	}
	if s.n() != 1 {
		t.Errorf("one service, added three times, is %d", s.n())
	}
}

// Any five ports in five days, with a restart after each: the fifth decides. Who asks for
// the same four again and again, by TCP and UDP, is nobody.
func TestAnyFivePortsOnFiveDays(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	late := 0
	const scans = 150
	for range scans {
		p, key := make(past), rng.Uint64()
		var ports [5]uint16
		for i, n := range rng.Perm(1 << 16)[:5] {
			ports[i] = uint16(n)
		}
		found := 0
		for day, port := range ports {
			b := newBench(t, Options{Sources: 16, Past: p, Key: key})
			b.now += int64(day) * int64(24*time.Hour)
			for _, again := range ports[:day] {
				if b.see(syn(scanner, host, again, detect.Refused)) != nil {
					t.Fatalf("port %d is counted twice", again)
				}
			}
			if b.see(syn(scanner, host, port, detect.Refused)) != nil {
				found = day + 1
			}
			b.Remember()
		}
		if found != 5 {
			late++
		}
	}
	if late > 0 {
		t.Errorf("%d of %d scans are not found at their fifth port", late, scans)
	}
}

// A source that is seen once or twice takes no more than its board; one that goes on has
// a deck, which is used again when another needs it. Nothing is lost on the way.
func TestDecks(t *testing.T) {
	if got := [2]uintptr{reflect.TypeFor[board]().Size(), reflect.TypeFor[deck]().Size()}; got != [2]uintptr{112, 216} {
		t.Errorf("a board and a deck take %d bytes, not as their comments say", got)
	}
	const sources = 1 << 10
	b := newBench(t, Options{Sources: sources})
	forged := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range 4 * sources {
		b.see(syn(forged(i), host, 22, detect.Silent))
		b.see(syn(forged(i), host, 23, detect.Silent))
	}
	if n := len(b.decks.slabs); n != 0 {
		t.Errorf("for sources with two contacts there are %d slabs", n)
	}
	for i := range 64 * sources {
		for port := range uint16(few + 2) {
			b.see(syn(forged(i), host, 22+port, detect.Silent))
		}
	}
	if n := len(b.decks.slabs) * slab; n > sources {
		t.Errorf("%d decks for %d sources", n, sources)
	}
	used, all := make(map[uint32]bool), 0
	for o := range b.boards.all() {
		if o.deck != 0 {
			all++
			used[o.deck] = true
		}
	}
	for _, n := range b.decks.free {
		used[n] = true
		all++
	}
	if len(used) != all || all != len(b.decks.slabs)*slab {
		t.Errorf("%d decks, of which %d are known, some twice", len(b.decks.slabs)*slab, all)
	}

	b.reset()
	b.see(syn(scanner, host, 1, detect.Silent))
	for i := range uint16(3 * things) { // more than are told apart
		b.see(syn(scanner, host, 1+i, detect.Silent))
	}
	var o *board
	for o = range b.boards.all() {
		if !o.has.is(sweeping) {
			break
		}
	}
	before := o.score
	for i := range uint16(3 * things) {
		b.see(syn(scanner, host, 1+i, detect.Silent))
	}
	if o.score != before || before < Step*(3*things-4) { // the filter takes some for known
		t.Errorf("score %v after %d ports, %v after the same ones again", before, 3*things, o.score)
	}
}
