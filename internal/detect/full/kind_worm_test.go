package full

import (
	"net/netip"
	"strings"
	"testing"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

type named struct{}

func (named) Label(_, now *detect.Header) (detect.Tool, uint64) { return 1, 77 }
func (named) Name(t detect.Tool) string                         { return "nmap" }

func TestWorm(t *testing.T) {
	sweep := func(o Options, port uint16, n int) []string {
		b := newBench(t, o)
		for i := range n {
			b.see(syn(scanner, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), port, detect.Silent))
		}
		return b.found()
	}
	for _, c := range []struct {
		what string
		got  []string
		want string
	}{
		{"445 of many", sweep(Options{}, 445, 40), "198.51.100.7 worm horizontal ports 1 targets 40"},
		{"445 of a few", sweep(Options{}, 445, 10), "198.51.100.7 syn horizontal ports 1 targets 10"},
		{"another port", sweep(Options{}, 8000, 40), "198.51.100.7 syn horizontal ports 1 targets 40"},
		{"a known tool", sweep(Options{Labels: named{}}, 445, 40), "198.51.100.7 syn horizontal ports 1 targets 40"},
	} {
		if len(c.got) != 1 || c.got[0] != c.want {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}
}

// Worms take addresses by chance, one in each network. Who looks for something else
// there, or finds it, is none.
func TestScatteredWorm(t *testing.T) {
	everywhere := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64 + byte(i/250), byte(i), 7}) }
	sweep := func(proto uint8, port uint16, n, finds int) []string {
		b := newBench(t, Options{Local: func(a netip.Addr) bool { return a == scanner }})
		for i := range n {
			c := syn(scanner, everywhere(i), port, detect.Silent)
			c.Head.OptionsLen, c.Head.Window = 20, 64240
			if c.Proto = proto; proto == decode.ProtoUDP {
				c.Kind = detect.KindUDP
			}
			if finds > 0 && i%finds == 0 {
				c.Outcome, c.Spoke = detect.Answered, true
			}
			b.see(c)
			b.see(c) // a retransmission is nothing new
		}
		return b.found()
	}
	for _, c := range []struct {
		what string
		got  []string
		want string // "": nothing
	}{
		{"445 of 18", sweep(decode.ProtoTCP, 445, 18, 0), ""},
		{"445 of 300", sweep(decode.ProtoTCP, 445, 300, 0), "198.51.100.7 worm horizontal ports 1 targets "},
		{"1434 of 100, by UDP", sweep(decode.ProtoUDP, 1434, 100, 0), "198.51.100.7 worm horizontal ports 1 targets "},
		{"P2P", sweep(decode.ProtoTCP, 6346, 300, 0), ""},
		{"without a way out", sweep(decode.ProtoTCP, 443, 300, 0), ""},
		{"servers of data, half of which are there", sweep(decode.ProtoTCP, 3306, 100, 2), ""},
	} {
		if c.want == "" && len(c.got) > 0 || c.want != "" && (len(c.got) != 1 || !strings.HasPrefix(c.got[0], c.want)) {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}
}

// A sweep is remembered as long as it is looked at, and no evidence against who comes
// back for something else.
func TestSweepIsNotKept(t *testing.T) {
	past := new(keeper)
	b := newBench(t, Options{Past: past})
	for i := range 10 {
		b.see(syn(scanner, netip.AddrFrom4([4]byte{100, 64, byte(i), 7}), 445, detect.Silent))
	}
	b.Remember()
	for _, m := range past.kept {
		if m.Score > Step {
			t.Errorf("kept with a score of %v, that of a failure is %v", m.Score, Step)
		}
	}
	if len(past.kept) != 10 {
		t.Errorf("%d kept, want one for each network", len(past.kept))
	}
}

type keeper struct{ kept []detect.Memory }

func (k *keeper) Keep(_ netip.Addr, m detect.Memory)             { k.kept = append(k.kept, m) }
func (k *keeper) Recall(netip.Addr, int64) (detect.Memory, bool) { return detect.Memory{}, false }
