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
