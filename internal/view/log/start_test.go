package log

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/config"
)

// The whole start and stop, in the order of 1.2 and 2.0.7.
func TestStartAndStop(t *testing.T) {
	all := func(c *config.Config) func(*Writer) {
		return func(w *Writer) {
			w.Starting("3.0.0", "4f1c2ab")
			w.Watching(c, inUse)
			w.Active()
			w.Stopping()
		}
	}
	both := modes(config.Connect, config.Stealth)
	for _, tt := range []struct {
		format config.LogFormat
		c      *config.Config
		want   []string
	}{
		{config.Log1x, both, []string{
			"adminalert: PortSentry 3.0.0 is starting.",
			"adminalert: Going into listen mode on TCP port: 11",
			"adminalert: Going into listen mode on TCP port: 15",
			"adminalert: ERROR: could not bind TCP socket: 15. Attempting to continue",
			"adminalert: Going into stealth listen mode on UDP port: 7",
			"adminalert: Going into stealth listen mode on UDP port: 69",
			"adminalert: ERROR: Socket 69 is in use and will not be monitored. Attempting to continue",
			"adminalert: PortSentry is now active and listening.",
			"securityalert: PortSentry is shutting down",
			"adminalert: PortSentry is shutting down",
		}},
		{config.Log1x, &config.Config{Modes: config.Modes{TCP: config.Advanced}, AdvancedExcludeTCP: ports(113), AdvancedPortsTCP: 16}, []string{
			"adminalert: PortSentry 3.0.0 is starting.",
			"adminalert: Advanced mode will monitor first 16 ports",
			"adminalert: Advanced mode will manually exclude port: 113 ",
			"adminalert: Advanced Stealth scan detection mode activated. Ignored TCP port: 15",
			"adminalert: Advanced Stealth scan detection mode activated. Ignored TCP port: 113",
			"adminalert: PortSentry is now active and listening.",
			"securityalert: PortSentry is shutting down",
			"adminalert: PortSentry is shutting down",
		}},
		{config.Log2x, both, []string{
			"Portsentry 3.0.0 (4f1c2ab)",
			"Listen on AF_INET6: TCP port: 11",
			"Portsentry is now active and listening.",
			"Portsentry is shutting down",
		}},
	} {
		if d := cmp.Diff(tt.want, produced(t, Options{Format: tt.format}, all(tt.c))); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.format, d)
		}
	}
	for _, line := range produced(t, Options{Format: config.LogJSON}, all(both)) {
		if !strings.HasPrefix(line, `{"event":"notice",`) || strings.Contains(line, "port: ") {
			t.Errorf("JSON: %q", line)
		}
	}
}

// Unset ADVANCED_PORTS_* means the same here as where the ports come from.
func TestAdvancedUnset(t *testing.T) {
	c := config.Config{Modes: config.Modes{TCP: config.Advanced}}
	if got := c.TrapsTCP(); len(got) != 1 || got[0].Last != advancedUnset-1 {
		t.Errorf("traps %v, but %d is named", got, advancedUnset)
	}
}

// All ports of both protocols fit into the buffer, and none goes unnamed.
func TestAllPorts(t *testing.T) {
	c := modes(config.Stealth, config.Connect)
	c.TCPPorts = config.PortSet{{First: 1, Last: 100}, {First: 200, Last: 65535}}
	c.UDPPorts = config.PortSet{{First: 1, Last: 65535}}
	none := func(bool, uint16) bool { return false }
	got := produced(t, Options{Format: config.Log1x}, func(w *Writer) { w.Watching(c, none) })
	if len(got) != 2*maxPortLines+2 {
		t.Fatalf("%d lines", len(got))
	}
	for _, want := range []string{
		"adminalert: Going into stealth listen mode on TCP ports: 65-100,200-65535",
		"adminalert: Going into listen mode on UDP ports: 65-65535",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no line %q", want)
		}
	}
}
