package packaging_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"portsentry/internal/config"
	"portsentry/packaging"
)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("portsentry.conf", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestShippedConfig(t *testing.T) {
	c := parse(t, string(packaging.Config()))
	if c.BlockTCP != config.BlockNone || c.BlockUDP != config.BlockNone {
		t.Error("bans as shipped; it must log only")
	}
	if len(c.BlockMethods) != 1 || c.BlockMethods[0] != config.MethodAuto || c.LogFormat != config.Log2x || c.ScanTrigger != 0 || c.ResolveHost {
		t.Error("not as promised")
	}
	if c.IgnoreFile != "/etc/portsentry/portsentry.ignore" ||
		c.HistoryFile != "/var/lib/portsentry/portsentry.history" ||
		c.BlockedFile != "/var/lib/portsentry/portsentry.blocked" {
		t.Error("files elsewhere than promised")
	}
	// Ports that honest machines send to unasked, or that a server serves.
	for _, p := range []uint16{22, 25, 53, 80, 113, 123, 143, 443, 465, 587, 993, 995} {
		if c.TCPPorts.Has(p) {
			t.Errorf("TCP port %d is a trap", p)
		}
	}
	for _, p := range []uint16{53, 67, 68, 123, 443, 500, 520, 546, 547, 4500, 5353} {
		if c.UDPPorts.Has(p) {
			t.Errorf("UDP port %d is a trap", p)
		}
	}
	for name, set := range map[string]config.PortSet{"TCP": c.TCPPorts, "UDP": c.UDPPorts} {
		if !set.Has(1) {
			t.Errorf("%s: a scan in order is not caught at once", name)
		}
		for _, r := range set {
			if r.Last >= 32768 && r.First <= 60999 {
				t.Errorf("%s: %d-%d is where connections of this machine begin", name, r.First, r.Last)
			}
		}
	}
}

// TestEveryExample puts each setting that the shipped file has as a comment in
// force, alone; an UNDO together with the command above it.
func TestEveryExample(t *testing.T) {
	text := string(packaging.Config())
	example := regexp.MustCompile(`^#\s?([A-Z][A-Z0-9_]*)\s*="`)
	lines := strings.Split(text, "\n")
	command := map[string]string{} // KILL_ROUTE, KILL_RUN_CMD: the last example so far
	found := map[string]int{}
	for i, line := range lines {
		m := example.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		key, setting := m[1], strings.TrimPrefix(line, "#")
		found[key]++
		command[key] = setting
		add := []string{setting}
		if of, ok := strings.CutSuffix(key, "_UNDO"); ok {
			add = append(add, command[of])
		}
		for _, other := range lines {
			if !strings.HasPrefix(other, key+"=") {
				add = append(add, other)
			}
		}
		c, err := config.Parse("portsentry.conf", []byte(strings.Join(add, "\n")))
		if err != nil {
			t.Errorf("line %d, %s: %v", i+1, line, err)
		} else if c.Line(key) != 1 {
			t.Errorf("line %d, %s: not in force", i+1, line)
		}
	}
	for key, want := range map[string]int{"TCP_PORTS": 6, "UDP_PORTS": 6, "KILL_ROUTE": 7, "KILL_ROUTE6": 2, "KILL_HOSTS_DENY": 2, "BLOCK_METHOD": 3} {
		if found[key] != want {
			t.Errorf("%d examples of %s, want %d", found[key], key, want)
		}
	}
}

// TestEveryKey asks that the shipped file shows each key there is.
func TestEveryKey(t *testing.T) {
	var all strings.Builder
	if err := parse(t, `TCP_PORTS="1"`).WriteEffective(&all); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(all.String()) {
		key, _, _ := strings.Cut(line, "=")
		if strings.HasPrefix(key, "#") {
			continue
		}
		if !regexp.MustCompile(`(?m)^#?` + key + `="`).Match(packaging.Config()) {
			t.Errorf("%s is not in it", key)
		}
	}
}

func TestShippedIgnore(t *testing.T) {
	for name, want := range map[string]string{
		"portsentry.ignore": "[127.0.0.0/8 ::1/128]", "portsentry.ignore.static": "[127.0.0.1/32]",
	} {
		if list, err := config.LoadIgnore(name); err != nil || fmt.Sprint(list.Prefixes) != want || list.Count() != len(list.Prefixes) {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

// TestShippedModes: both files of old watch as portsentry does without them.
func TestShippedModes(t *testing.T) {
	stealth := config.Modes{TCP: config.Stealth, UDP: config.Stealth}
	text, err := os.ReadFile("portsentry.modes")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := config.ParseModes("portsentry.modes", text); err != nil || m != stealth {
		t.Errorf("portsentry.modes: %v, %v", m, err)
	}
	if text, err = os.ReadFile("default/portsentry"); err != nil {
		t.Fatal(err)
	}
	if m, none, err := config.ParseDefaults("default/portsentry", text); err != nil || none || m != stealth {
		t.Errorf("default/portsentry: %v, %v", m, err)
	}
	// With every mode the shipped configuration has something to watch.
	c := parse(t, string(packaging.Config()))
	for _, m := range []config.Mode{config.Connect, config.Stealth, config.Advanced} {
		n, err := c.WithModes(config.Modes{TCP: m, UDP: m}, config.Dialect1x)
		if err != nil || n.TrapsTCP().Count() == 0 || n.TrapsUDP().Count() == 0 || n.LogFormat != config.Log1x {
			t.Errorf("mode %d: %v", m, err)
		}
	}
}
