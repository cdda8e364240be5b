package xdp

import (
	"net/netip"
	"testing"

	"portsentry/internal/bpf"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// The numbers of the program are those of package judge.
func TestWords(t *testing.T) {
	for program, ours := range map[bpf.Strength]judge.Strength{
		bpf.Pardon: judge.Nothing, bpf.Limited: judge.Limited, bpf.Soft: judge.Soft, bpf.Full: judge.Full,
	} {
		if uint8(program) != uint8(ours) {
			t.Errorf("%v is %d in the program", ours, program)
		}
	}
	for _, s := range []judge.Scope{judge.AllProtocols, judge.TCPOnly, judge.UDPOnly} {
		if got := scope(protos(s)); got != s {
			t.Errorf("%v comes back as %v", s, got)
		}
	}
	odd := ban(&bpf.Ban{Strength: bpf.Soft, Evidence: 77, Kind: 77, Protos: bpf.BanOther})
	if odd.Evidence != judge.E3 || odd.Kind != "" || odd.Scope != judge.AllProtocols {
		t.Errorf("%+v", odd)
	}
}

func TestTakes(t *testing.T) {
	m := New(nil)
	for _, c := range []struct {
		prefix   string
		strength judge.Strength
		scope    judge.Scope
		want     bool
	}{
		{"192.0.2.1/32", judge.Full, judge.AllProtocols, true},
		{"192.0.2.1/32", judge.Soft, judge.TCPOnly, true},
		{"192.0.2.1/32", judge.Limited, judge.UDPOnly, true},
		{"2001:db8::/64", judge.Soft, judge.AllProtocols, true},
		{"2001:db8::1/128", judge.Soft, judge.AllProtocols, true},
		{"192.0.2.1/32", judge.Full, judge.TCPOnly, false},
		{"192.0.2.1/32", judge.Nothing, judge.AllProtocols, false},
		{"192.0.2.0/24", judge.Soft, judge.AllProtocols, true},
		{"2001:db8::/48", judge.Full, judge.AllProtocols, true},
		{"192.0.2.0/24", judge.Limited, judge.AllProtocols, false},
		{"192.0.2.0/24", judge.Soft, judge.TCPOnly, false},
		{"0.0.0.0/0", judge.Soft, judge.AllProtocols, false},
		{"::ffff:192.0.2.1/128", judge.Soft, judge.AllProtocols, false},
	} {
		b := respond.Ban{Prefix: netip.MustParsePrefix(c.prefix), Strength: c.strength, Scope: c.scope}
		if m.Takes(&b) != c.want {
			t.Errorf("%v ban, %v, of %s: want %v", c.strength, c.scope, c.prefix, c.want)
		}
		if !c.want && m.BanAll(t.Context(), []respond.Ban{b}) == nil {
			t.Errorf("%v ban, %v, of %s was made", c.strength, c.scope, c.prefix)
		}
	}
}
