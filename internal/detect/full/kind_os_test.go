package full

import (
	"testing"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

func TestOSProbe(t *testing.T) {
	const fpu = decode.FIN | decode.PSH | decode.URG
	for _, c := range []struct {
		what string
		h    detect.Header
		want bool
	}{
		{"T2", detect.Header{Window: 128, OptionsLen: 20}, true},
		{"T3", detect.Header{Window: 256, Flags: decode.SYN | fpu, OptionsLen: 20}, true},
		{"T5", detect.Header{Window: 31337, Flags: decode.SYN, OptionsLen: 20}, true},
		{"T7", detect.Header{Window: 65535, Flags: fpu, OptionsLen: 20}, true},
		{"ECN", detect.Header{Window: 3, Urgent: 63477, Flags: decode.SYN | decode.ECE | decode.CWR, OptionsLen: 12}, true},
		{"a Mac", detect.Header{Window: 65535, Flags: decode.SYN, OptionsLen: 24}, false},
		{"a BSD", detect.Header{Window: 65535, Flags: decode.SYN, OptionsLen: 20}, false},
		{"nmap -sX", detect.Header{Window: 1024, Flags: fpu}, false},
		{"nmap -sN", detect.Header{Window: 1024}, false},
		{"a small window", detect.Header{Window: 3, Flags: decode.SYN, OptionsLen: 12}, false},
	} {
		c.h.Proto = decode.ProtoTCP
		if got := osProbe(&c.h); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	if osProbe(&detect.Header{Proto: decode.ProtoUDP, Window: 128, OptionsLen: 20}) {
		t.Error("no TCP")
	}
}

// nmap -O with one open port and one closed has little to fail at. What it goes back to
// an open port for does not pass for a client who misses his service.
func TestOSDetectionOfTwoPorts(t *testing.T) {
	const open, closed = 22, 25
	b := newBench(t, Options{})
	probe := func(port, window, flags uint16, options uint8, out detect.Outcome) {
		c := syn(scanner, host, port, out)
		c.Kind = detect.Classify(flags)
		c.Head.Window, c.Head.Flags, c.Head.OptionsLen = window, flags, options
		b.see(c)
	}
	probe(closed, 1024, decode.SYN, 4, detect.Refused)
	probe(open, 1024, decode.SYN, 4, detect.Answered)
	c := syn(scanner, host, 32443, detect.Refused)
	c.Proto, c.Kind = decode.ProtoUDP, detect.KindUDP
	b.see(c)
	probe(open, 128, 0, 20, detect.Silent)
	probe(closed, 31337, decode.SYN, 20, detect.Refused)
	probe(open, 1024, decode.ACK, 20, detect.Refused)
	probe(closed, 32768, decode.ACK, 20, detect.Refused)
	probe(open, 256, decode.SYN|decode.FIN|decode.PSH|decode.URG, 20, detect.Silent)
	c = syn(scanner, host, open, detect.Answered)
	c.Head.Window, c.Head.Urgent, c.Head.OptionsLen = 3, 0xf7f5, 12
	b.see(c)
	for s := range b.Scans() {
		if s.Kind == detect.KindOS {
			return
		}
	}
	t.Errorf("OS detection is not found: %q", b.found())
}
