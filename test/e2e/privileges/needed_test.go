package privileges_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"portsentry/test/lab"
)

// TestEachIsNeeded: without one of the capabilities of the unit something is missing,
// and said with its name; with it, it is there. What is left goes on to work.
func TestEachIsNeeded(t *testing.T) {
	const trap = 11 // below 1024
	config := func(capture, method string, more ...string) []string {
		return append([]string{`TCP_PORTS="11"`, `UDP_PORTS="7"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="` + method + `"`, `CAPTURE="` + capture + `"`}, more...)
	}
	cases := map[string]struct {
		config []string
		args   []string
		absent string // another one that is missing all the time
		starts bool
		says   string             // without the capability
		works  func(*host) string // what is wrong; "": it works
	}{
		"net_admin": {config: config("auto", "nftables"), says: "operation not permitted", works: bans("nftables")},
		"net_raw":   {config: config("afpacket", "nftables"), says: "operation not permitted", works: bans("nftables")},
		"bpf":       {config: config("auto", "auto"), starts: true, says: "needs CAP_BPF", works: bans("xdp")},
		"perfmon":   {config: config("auto", "auto"), starts: true, says: "CAP_PERFMON", works: bans("xdp")},
		// Where the kernel cannot steer a trap port to our socket, each takes one.
		"net_bind_service": {config: []string{`TCP_PORTS="11"`, `UDP_PORTS="7"`}, args: []string{"--connect"}, absent: "bpf", says: "CAP_NET_BIND_SERVICE", works: accepts(trap)},
	}
	all := capabilities(t)
	for _, c := range all {
		if _, ok := cases[c]; !ok {
			t.Errorf("the unit gives %s, and no test needs it", c)
		}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, c.config...)
			all := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == c.absent })
			without := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == name })
			if len(without) == len(all) {
				t.Fatalf("the unit does not give it: %q", all)
			}
			if c.starts {
				p := h.start(without, c.args...)
				if said := h.problems(); !strings.Contains(said, c.says) {
					t.Errorf("without it %q is no problem:\n%s", c.says, said)
				}
				if c.works(h) == "" {
					t.Error("it works without")
				}
				p.Stop(syscall.SIGTERM)
			} else {
				p := h.launch(without, c.args...)
				lab.Wait(t, patience, "its end", func() bool { return !p.Running() })
				if said := h.said(p); !strings.Contains(said, c.says) {
					t.Errorf("without it it says\n%s", said)
				}
			}
			h.start(all, c.args...)
			if wrong := c.works(h); wrong != "" {
				t.Errorf("with it: %s", wrong)
			}
			if said := h.problems(); said != "" && c.absent == "" {
				t.Errorf("with it: %s", said)
			}
		})
	}
}

// bans reports whether a probe is answered with a ban by method.
func bans(method string) func(*host) string {
	n := 10
	return func(h *host) string {
		n++
		if b := h.banned(scanner(n), 11); !slices.Contains(b.Methods, method) {
			return "banned by " + strings.Join(b.Methods, ", ")
		}
		return ""
	}
}

// accepts reports whether a trap port takes connections.
func accepts(port uint16) func(*host) string {
	return func(h *host) string {
		if !h.dial(port) {
			return "the trap port refuses"
		}
		return ""
	}
}
