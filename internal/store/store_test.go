package store

import (
	"net/netip"
	"strings"
	"testing"
)

func TestHostName(t *testing.T) {
	for _, name := range []string{"scan.example", "a", "10-77-0-2.dyn.example.net.", "_dmarc.x9", strings.Repeat("a", 255)} {
		if got := HostName(name); got != name {
			t.Errorf("%q is shown as %q", name, got)
		}
	}
	for _, name := range []string{
		"", ".", "x\nattackalert: Host 10.0.0.1", "a b", "host) protocol: [TCP]", "\x1b[2J", "ünicode.example", "a/b", strings.Repeat("a", 256),
		"10.0.0.1", "10.0.0.1.", "1", "a.010", "a.0x7f", "fd77::2", "a..-b",
	} {
		if got := HostName(name); got != "" {
			t.Errorf("%q is shown as %q", name, got)
		}
		r := Record{Name: name}
		r.Verdict.Sighting.Src = netip.MustParseAddr("203.0.113.9")
		if line := string(AppendScanLine(nil, &r)); !strings.HasPrefix(line, "Scan from: [203.0.113.9] (203.0.113.9) protocol: ") {
			t.Errorf("%q gets into the scan line: %q", name, line)
		}
	}
}
