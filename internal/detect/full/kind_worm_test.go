package full

import (
	"net/netip"
	"testing"

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
