package privileges_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/test/lab"
)

// mask is a set of capabilities as /proc has it.
func mask(caps ...uint) string {
	var m uint64
	for _, c := range caps {
		m |= 1 << c
	}
	return fmt.Sprintf("%016x", m)
}

// watched are the fields that tell how a process is confined.
var watched = []string{"Uid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"}

func wantFields(t *testing.T, pid int, want map[string]string) {
	t.Helper()
	for name, got := range fields(t, pid, watched...) {
		if got != want[name] {
			t.Errorf("%s is %q, want %q", name, got, want[name])
		}
	}
}

const inAuto = `TCP_PORTS="1,11"` + "\n" + `UDP_PORTS="7"` + "\n" + `BLOCK_TCP="1"` + "\n" + `BLOCK_METHOD="auto"` + "\n" + `CAPTURE="auto"` + "\n" +
	`HISTORY_FILE="/var/lib/portsentry/portsentry.history"` + "\n" + `BLOCKED_FILE="/var/lib/portsentry/portsentry.blocked"`

// TestUnitsUser: with the user and the capabilities of the unit nothing is missing: a
// scan is seen and banned in the driver and in the firewall, and the ban is there
// after a restart, after a crash and after a start by root.
func TestUnitsUser(t *testing.T) {
	h := newHost(t, inAuto)
	p := h.start(capabilities(t))
	kept := mask(unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_BPF)
	wantFields(t, p.PID(), map[string]string{
		"Uid": strings.Repeat(number+"\t", 3) + number, "NoNewPrivs": "1", "Seccomp": "2",
		"CapInh": mask(), "CapPrm": kept, "CapEff": kept, "CapAmb": mask(),
		// To lower it would take CAP_SETPCAP; with no_new_privs it gives nothing.
		"CapBnd": mask(unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_BIND_SERVICE),
	})
	if got := h.problems(); got != "" {
		t.Errorf("problems: %s", got)
	}
	ban := h.banned(scanner(1), 1)
	if !slices.Equal(ban.Methods, []string{"xdp", "nftables"}) {
		t.Errorf("%+v", ban)
	}
	if table := h.Run("nft", "list", "table", "inet", "portsentry"); !strings.Contains(table, scanner(1).String()) {
		t.Errorf("it is not in the firewall:\n%s", table)
	}
	lab.Wait(t, patience, "its line in the blocked file", func() bool {
		return strings.Contains(h.Read("/var/lib/portsentry/portsentry.blocked"), scanner(1).String())
	})
	still := func(when string) {
		t.Helper()
		after, ok := h.ban(scanner(1))
		if !ok || !after.Since.Equal(ban.Since) || !slices.Equal(after.Methods, ban.Methods) {
			t.Errorf("%s: %+v, before %+v", when, after, ban)
		}
		if got := h.problems(); got != "" {
			t.Errorf("%s: problems: %s", when, got)
		}
	}
	if code := p.Stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d\n%s", code, h.said(p))
	}
	p = h.start(capabilities(t))
	still("after a restart")
	p.Stop(syscall.SIGKILL)
	p = h.start(capabilities(t))
	still("after a crash")
	h.banned(scanner(2), 11)
	p.Stop(syscall.SIGTERM)

	// Root and the user take turns with the same files.
	root := h.Start(program)
	lab.Wait(t, patience, "root's is ready", func() bool { _, code := h.Try(program, "status"); return code == 0 })
	lab.Wait(t, patience, "root's has the ban", func() bool { _, ok := h.ban(scanner(1)); return ok })
	still("started by root")
	root.Stop(syscall.SIGTERM)
	h.start(capabilities(t))
	still("after root's")
}

// TestRoot: started by root it keeps a few capabilities, and every thread is in the
// filter.
func TestRoot(t *testing.T) {
	for name, c := range map[string]struct {
		conf string
		args []string
		kept string
	}{
		"XDP":     {inAuto, nil, mask(unix.CAP_DAC_OVERRIDE, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_BPF)},
		"no XDP":  {inAuto + "\n" + `BLOCK_METHOD="nftables"` + "\n" + `CAPTURE="afpacket"`, nil, mask(unix.CAP_DAC_OVERRIDE, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW)},
		"connect": {inAuto, []string{"--connect"}, mask(unix.CAP_DAC_OVERRIDE, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_BPF, unix.CAP_NET_BIND_SERVICE)},
	} {
		t.Run(name, func(t *testing.T) {
			lines := strings.Split(c.conf, "\n")
			seen := make(map[string]string)
			for _, l := range lines { // the last one counts
				key, _, _ := strings.Cut(l, "=")
				seen[key] = l
			}
			var conf []string
			for _, l := range seen {
				conf = append(conf, l)
			}
			h := newHost(t, conf...)
			p := h.Start(append([]string{program}, c.args...)...)
			lab.Wait(t, patience, "it is ready", func() bool { _, code := h.Try(program, "status"); return code == 0 && len(h.status().Watching) > 0 })
			wantFields(t, p.PID(), map[string]string{
				"Uid": "0\t0\t0\t0", "NoNewPrivs": "1", "Seccomp": "2",
				"CapInh": mask(), "CapPrm": c.kept, "CapEff": c.kept, "CapBnd": c.kept, "CapAmb": mask(),
			})
		})
	}
}

// TestReloadElsewhere: a file in a folder that was none of ours at the start can not
// be opened any more. That is said before anything has changed.
func TestReloadElsewhere(t *testing.T) {
	h := newHost(t, inAuto)
	check(t, os.MkdirAll(h.Path("/var/elsewhere"), 0o777))
	p := h.start(capabilities(t))
	h.configure(strings.ReplaceAll(inAuto, "/var/lib/portsentry/portsentry.history", "/var/elsewhere/history"), `IGNORE_FILE="/var/elsewhere/ignore"`)
	check(t, syscall.Kill(p.PID(), syscall.SIGHUP))
	lab.Wait(t, patience, "what becomes of the reload", func() bool { return strings.Contains(h.said(p), "was not read again") })
	for _, want := range []string{"HISTORY_FILE: /var/elsewhere/history", "IGNORE_FILE: /var/elsewhere/ignore", "restart it once"} {
		if said := h.said(p); !strings.Contains(said, want) {
			t.Errorf("%q is not said:\n%s", want, said)
		}
	}
	if b := h.banned(scanner(3), 1); b.Reason == "" {
		t.Errorf("%+v", b)
	}
}
