package full

import (
	"net/netip"
	"testing"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

func TestConnects(t *testing.T) {
	six := netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		what string
		dst  netip.Addr
		head detect.Header
		want bool
	}{
		{"Linux", host, detect.Header{Window: 64240, MSS: 1460, OptionsLen: 20}, true},
		{"Windows", host, detect.Header{Window: 8192, MSS: 1460, OptionsLen: 12}, true},
		{"nmap -sS", host, detect.Header{Window: 1024, MSS: 1460, OptionsLen: 4}, false},
		{"no options", host, detect.Header{Window: 512}, false},
		{"no options, the whole window", host, detect.Header{Window: 65535}, false},
		{"options lost, Linux of old", host, detect.Header{Window: 5840}, true},
		{"options lost, IPv6", six, detect.Header{Window: 5760}, true},
		{"window 0", host, detect.Header{}, false},
	} {
		got := connects(&detect.Contact{Dst: c.dst, Proto: decode.ProtoTCP, Kind: detect.KindSYN, Head: c.head})
		if got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

// A scan with connect(2) and one with packets of its own are two kinds of one source.
func TestSYNThenConnect(t *testing.T) {
	b := newBench(t, Options{})
	for i := range uint16(10) {
		b.see(syn(scanner, host, 1000+i, detect.Refused))
	}
	for i := range uint16(10) {
		c := syn(scanner, host, 1000+i, detect.Refused)
		c.Head.OptionsLen, c.Head.Window = 20, 64240
		b.see(c)
	}
	got := b.found()
	if len(got) != 2 || got[0] != "198.51.100.7 syn vertical ports 10 targets 1" || got[1] != "198.51.100.7 connect vertical ports 10 targets 1" {
		t.Errorf("%q", got)
	}
}
