package privileges_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/internal/view"
	"portsentry/test/harness"
	"portsentry/test/lab"
	"portsentry/test/machine"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

const (
	patience = 20 * time.Second
	program  = "/usr/local/sbin/portsentry"
	conf     = "/etc/portsentry/portsentry.conf"
	unitFile = "../../../packaging/systemd/portsentry.service"

	user, uid, number = "portsentry", 989, "989"
)

// host is a machine with the program and the user of the packages.
type host struct {
	*machine.Machine
	t    *testing.T
	lab  *lab.Lab
	send *pktgen.Sender
}

func newHost(t *testing.T, config ...string) *host {
	t.Helper()
	t.Parallel()
	l := lab.New(t)
	h := &host{Machine: machine.New(t, l.Host.NS), t: t, lab: l}
	check(t, os.Mkdir(h.Path("/var/sbin"), 0o755))
	check(t, os.Link(lab.Binary(t), h.Path("/var/sbin/portsentry")))
	h.Run("mount", "--bind", "/var/sbin", "/usr/local/sbin")
	h.Run("mount", "-t", "bpf", "bpf", "/sys/fs/bpf", "-o", "mode=700") // as systemd mounts it
	h.account("passwd", user+":x:"+number+":"+number+"::/nonexistent:/usr/sbin/nologin")
	h.account("group", user+":x:"+number+":")
	var err error
	h.send, err = l.Scanner.Sender()
	check(t, err)
	t.Cleanup(func() { h.send.Close() })
	h.configure(config...)
	return h
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// account adds a line to a file of users, in the place of one that is there.
func (h *host) account(file, line string) {
	old := regexp.MustCompile("(?m)^"+user+":.*\n").ReplaceAllString(h.Read("/etc/"+file), "")
	h.Write("/etc/"+file, old+line+"\n")
}

func (h *host) configure(lines ...string) {
	h.Write(conf, strings.Join(lines, "\n")+"\n"+harness.CaptureLine())
}

// unit gives the values of a setting of portsentry.service, in its order.
func unit(t *testing.T, key string) (values []string) {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	check(t, err)
	for _, m := range regexp.MustCompile("(?m)^"+key+"=(.*)$").FindAllStringSubmatch(string(text), -1) {
		values = append(values, m[1])
	}
	if values == nil {
		t.Fatalf("%s is not in %s", key, unitFile)
	}
	return values
}

// capabilities are those of the unit, as setpriv names them.
func capabilities(t *testing.T) []string {
	t.Helper()
	return strings.Fields(strings.ToLower(strings.ReplaceAll(unit(t, "AmbientCapabilities")[0], "CAP_", "")))
}

// confine does what systemd does to the file systems for TemporaryFileSystem= and
// BindPaths=, and goes on with the rest of the command line.
const confine = `set -e
mkdir -p /run/aside
mount --bind /sys/fs/bpf/portsentry /run/aside
mount -t tmpfs tmpfs /sys/fs/bpf
mkdir /sys/fs/bpf/portsentry
mount --move /run/aside /sys/fs/bpf/portsentry
mount -o remount,ro /sys/fs/bpf
exec "$@"`

// launch starts the program as the unit does: as its user, with some of its
// capabilities, after its ExecStartPre=.
func (h *host) launch(caps []string, flags ...string) *machine.Program {
	h.t.Helper()
	for _, dir := range []string{"/var/lib/portsentry", "/run/portsentry"} { // StateDirectory=, RuntimeDirectory=
		check(h.t, os.MkdirAll(h.Path(dir), 0o755))
		check(h.t, os.Chown(h.Path(dir), uid, uid))
	}
	for _, line := range unit(h.t, "ExecStartPre") {
		command, ok := strings.CutPrefix(line, "-+")
		if !ok {
			h.t.Fatalf("ExecStartPre=%s", line)
		}
		// This machine's only mount namespace is the one that the unit's goes to.
		h.Run(strings.Fields(strings.TrimPrefix(command, "/usr/bin/nsenter --target 1 --mount "))...)
	}
	set := "-all"
	for _, c := range caps {
		set += ",+" + c
	}
	args := []string{
		"unshare", "--mount", "--propagation", "private", "sh", "-c", confine, "sh",
		"setpriv", "--reuid", user, "--regid", user, "--init-groups", "--no-new-privs",
		"--inh-caps", set, "--ambient-caps", set, "--bounding-set", set,
	}
	return h.Start(append(append(args, program), flags...)...)
}

// start waits until it watches.
func (h *host) start(caps []string, flags ...string) *machine.Program {
	h.t.Helper()
	p := h.launch(caps, flags...)
	lab.Wait(h.t, patience, "the daemon is ready", func() bool {
		if !p.Running() {
			h.t.Fatalf("it ended:\n%s", h.said(p))
		}
		said, code := h.Try(program, "status", "--json")
		var s view.Status
		return code == 0 && json.Unmarshal([]byte(said), &s) == nil && len(s.Watching) > 0
	})
	return p
}

// said is all that a program has written.
func (h *host) said(p *machine.Program) string {
	h.t.Helper()
	out, err := p.Out.Lines()
	check(h.t, err)
	errs, err := p.Err.Lines()
	check(h.t, err)
	return strings.Join(append(out, errs...), "\n")
}

func (h *host) status() (s view.Status) {
	h.t.Helper()
	check(h.t, json.Unmarshal([]byte(h.Run(program, "status", "--json")), &s))
	return s
}

// problems are what status says, in one text.
func (h *host) problems() string {
	h.t.Helper()
	return strings.Join(h.status().Problems, "\n")
}

// ban is the ban of an address.
func (h *host) ban(a netip.Addr) (ban view.Ban, ok bool) {
	h.t.Helper()
	var answer struct{ Bans []view.Ban }
	check(h.t, json.Unmarshal([]byte(h.Run(program, "bans", "--json")), &answer))
	for _, b := range answer.Bans {
		if b.Prefix.Contains(a) {
			return b, true
		}
	}
	return ban, false
}

// scanner is the nth of those who probe.
func scanner(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 100, byte(n)}) }

// probe sends a SYN in the name of src.
func (h *host) probe(src netip.Addr, port uint16) {
	h.t.Helper()
	check(h.t, h.send.SendPacket(pktgen.Packet{
		Src: src, Dst: h.lab.Host.Addr4(), Proto: pktgen.ProtoTCP, SrcPort: 40000, DstPort: port, Flags: pktgen.SYN, Seq: 7, Window: 1024,
	}))
}

// banned probes until src is banned.
func (h *host) banned(src netip.Addr, port uint16) (ban view.Ban) {
	h.t.Helper()
	h.probe(src, port)
	lab.Wait(h.t, patience, "a ban of "+src.String(), func() (ok bool) {
		ban, ok = h.ban(src)
		return ok
	})
	return ban
}

// dial reports whether a TCP connection from the scanner comes about.
func (h *host) dial(port uint16) bool {
	h.t.Helper()
	err := h.lab.Scanner.NS.Do(func() error {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(h.lab.Host.Addr4(), port).String(), patience)
		if err == nil {
			c.Close()
		}
		return err
	})
	if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
		h.t.Error(err)
	}
	return err == nil
}

// fields are lines of /proc/PID/status, and the same of every thread.
func fields(t *testing.T, pid int, names ...string) map[string]string {
	t.Helper()
	threads, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "status"))
	check(t, err)
	if len(threads) < 2 {
		t.Fatalf("%d threads", len(threads))
	}
	out := make(map[string]string)
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // a thread that has ended
		}
		check(t, err)
		for _, name := range names {
			m := regexp.MustCompile(`(?m)^` + name + `:\s*(.*)$`).FindStringSubmatch(string(text))
			if m == nil {
				t.Fatalf("%s has no %s", path, name)
			}
			if was, seen := out[name]; seen && was != m[1] {
				t.Errorf("%s: %s is %s, and %s in another thread", path, name, m[1], was)
			}
			out[name] = m[1]
		}
	}
	return out
}
