package habits_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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

func TestMain(m *testing.M) {
	// They wait for daemons more than they work, so there may be more of them at a
	// time than CPUs.
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		flag.Set("test.parallel", "4")
	}
	os.Exit(lab.Main(m))
}

const (
	// patience with a machine that does other things too.
	patience = 20 * time.Second

	program  = "/usr/local/sbin/portsentry"
	confPath = "/etc/portsentry/portsentry.conf"
	pidPath  = "/run/portsentry.pid"

	starting = "adminalert: PortSentry 3.0.0 is starting."
	active   = "adminalert: PortSentry is now active and listening."
	stopping = "PortSentry is shutting down"
	reloaded = "the configuration has been read again and is in force"
	refused  = "the configuration was not read again"
)

// host is a machine that has portsentry installed, and the wire to it.
type host struct {
	*machine.Machine
	t    *testing.T
	lab  *lab.Lab
	log  *machine.Syslog
	send *pktgen.Sender
}

// newHost makes a machine with portsentry in its PATH. Every line of conf is one
// of portsentry.conf.
func newHost(t *testing.T, conf ...string) *host {
	t.Helper()
	t.Parallel()
	l := lab.New(t)
	m := machine.New(t, l.Host.NS)
	// Not the program's own folder, which root alone may enter.
	check(t, os.Mkdir(m.Path("/var/sbin"), 0o755))
	check(t, os.Link(lab.Binary(t), m.Path("/var/sbin/portsentry")))
	m.Run("mount", "--bind", "/var/sbin", "/usr/local/sbin")
	s, err := l.Scanner.Sender()
	check(t, err)
	t.Cleanup(func() { s.Close() })
	h := &host{Machine: m, t: t, lab: l, log: m.Syslog(), send: s}
	h.configure(conf...)
	return h
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *host) configure(conf ...string) {
	h.Write(confPath, strings.Join(conf, "\n")+"\n"+harness.CaptureLine())
}

// run runs portsentry to its end.
func (h *host) run(args ...string) (out, errs []string, code int) {
	h.t.Helper()
	return h.ended(h.Start(append([]string{program}, args...)...))
}

// ended waits for the end of a program.
func (h *host) ended(p *machine.Program) (out, errs []string, code int) {
	h.t.Helper()
	lab.Wait(h.t, patience, "the end of the program", func() bool { return !p.Running() })
	return lines(h.t, p.Out), lines(h.t, p.Err), p.Stop(syscall.SIGKILL)
}

func lines(t *testing.T, out harness.Output) []string {
	t.Helper()
	all, err := out.Lines()
	check(t, err)
	return all
}

// detach starts a daemon that has to become ready, and gives its number on the
// machine.
func (h *host) detach(args ...string) (pid int) {
	h.t.Helper()
	out, errs, code := h.run(args...)
	if code != 0 {
		h.t.Fatalf("%v: exit code %d\n%q\n%q", args, code, out, errs)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(h.Read(pidPath)))
	if err != nil {
		h.t.Fatalf("%s: %v", pidPath, err)
	}
	return pid
}

// foreground starts a daemon that stays, and waits until it is ready.
func (h *host) foreground(args ...string) *machine.Program {
	h.t.Helper()
	p := h.Start(append([]string{program}, args...)...)
	lab.Wait(h.t, patience, "the daemon is ready", func() bool {
		ready := h.watches()
		if !ready && !p.Running() {
			out, errs, code := h.ended(p)
			h.t.Fatalf("%v: exit code %d\n%q\n%q", args, code, out, errs)
		}
		return ready
	})
	return p
}

// watches reports whether a daemon answers and has begun to watch: the first
// comes before the second.
func (h *host) watches() bool {
	h.t.Helper()
	said, ok := h.try("status", "--json")
	if !ok {
		return false
	}
	var s view.Status
	check(h.t, json.Unmarshal([]byte(said), &s))
	return len(s.Watching) > 0
}

// try asks the daemon.
func (h *host) try(args ...string) (said string, ok bool) {
	h.t.Helper()
	said, code := h.Try(append([]string{program}, args...)...)
	return said, code == 0
}

func (h *host) status() (s harness.Status) {
	h.t.Helper()
	check(h.t, json.Unmarshal([]byte(h.Run(program, "status", "--json")), &s.Status))
	return s
}

func (h *host) counter(name string) uint64 {
	h.t.Helper()
	s := h.status()
	v, ok := s.Counter(name)
	if !ok {
		h.t.Fatalf("no counter %s", name)
	}
	return v
}

func (h *host) bans() []view.Ban {
	h.t.Helper()
	var answer struct{ Bans []view.Ban }
	check(h.t, json.Unmarshal([]byte(h.Run(program, "bans", "--json")), &answer))
	return answer.Bans
}

// signal sends a signal, by its name, to a process of the machine.
func (h *host) signal(name string, pid int) {
	h.t.Helper()
	h.Run("kill", "-"+name, strconv.Itoa(pid))
}

// stop ends a detached daemon and waits for its end.
func (h *host) stop(pid int) {
	h.t.Helper()
	h.signal("TERM", pid)
	h.gone()
}

// gone waits until no portsentry runs, nor anything is left of it.
func (h *host) gone() {
	h.t.Helper()
	lab.Wait(h.t, patience, "the end of the daemon", func() bool { return h.Processes("portsentry") == nil })
	for _, path := range []string{pidPath, view.DefaultSocket} {
		if _, err := os.Lstat(h.Path(path)); err == nil {
			h.t.Errorf("%s is left behind", path)
		}
	}
}

// hangup has the daemon read its configuration again, and waits for what it says
// of that.
func (h *host) hangup(pid int, want string) {
	h.t.Helper()
	before := h.logged(want)
	h.signal("HUP", pid)
	lab.Wait(h.t, patience, want, func() bool { return h.logged(want) > before })
}

// logged counts messages in syslog with all the parts.
func (h *host) logged(parts ...string) (n int) {
	for _, e := range h.log.Entries() {
		if has(e.Text, parts) {
			n++
		}
	}
	return n
}

func has(text string, parts []string) bool {
	return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(text, p) })
}

// says waits for a line of out with all the parts, and gives it.
func (h *host) says(out harness.Output, parts ...string) (line string) {
	h.t.Helper()
	lab.Wait(h.t, patience, strings.Join(parts, " and "), func() bool {
		all := lines(h.t, out)
		i := slices.IndexFunc(all, func(l string) bool { return has(l, parts) })
		if i >= 0 {
			line = all[i]
		}
		return i >= 0
	})
	return line
}

// contains waits until a file of the machine has some text in it.
func (h *host) contains(path, text string) {
	h.t.Helper()
	lab.Wait(h.t, patience, path+" has "+text, func() bool { return strings.Contains(h.Read(path), text) })
}

// source is the nth of those who probe.
func source(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, byte(100 + n/250), byte(1 + n%250)})
}

func (h *host) packet(src netip.Addr, proto uint8, port uint16) pktgen.Packet {
	return pktgen.Packet{
		Src: src, Dst: h.lab.Host.Addr4(), Proto: proto,
		SrcPort: 40000, DstPort: port, Flags: pktgen.SYN, Seq: 7, Window: 1024,
	}
}

// probe sends a SYN and knock a datagram, in the name of src.
func (h *host) probe(src netip.Addr, port uint16) {
	h.t.Helper()
	check(h.t, h.send.SendPacket(h.packet(src, pktgen.ProtoTCP, port)))
}

func (h *host) knock(src netip.Addr, port uint16) {
	h.t.Helper()
	check(h.t, h.send.SendPacket(h.packet(src, pktgen.ProtoUDP, port)))
}

// read is all that who listens on a TCP port says.
func (h *host) read(port uint16) (said string) {
	h.t.Helper()
	check(h.t, h.lab.Scanner.NS.Do(func() error {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(h.lab.Host.Addr4(), port).String(), patience)
		if err != nil {
			return err
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		said = string(b)
		if errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		return err
	}))
	return said
}

// alert is the line of 1.x about a SYN, under whatever name.
func alert(src netip.Addr, port int) string {
	return fmt.Sprintf("attackalert: TCP SYN/Normal scan from host: %s/%[1]s to TCP port: %d", src, port)
}

// link is where a descriptor or the working directory of a process leads.
func (h *host) link(pid int, name string) (to string) {
	h.t.Helper()
	check(h.t, h.Do(func() (err error) {
		to, err = os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), name))
		return err
	}))
	return to
}

// count is how many entries a folder of /proc/PID has.
func (h *host) count(pid int, folder string) (n int) {
	h.t.Helper()
	check(h.t, h.Do(func() error {
		all, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), folder))
		n = len(all)
		return err
	}))
	return n
}

// session is the session that a process belongs to, and its controlling
// terminal, proc_pid_stat(5).
func (h *host) session(pid int) (sid, tty string) {
	h.t.Helper()
	check(h.t, h.Do(func() error {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); err == nil && len(f) > 4 {
			sid, tty = f[3], f[4]
		}
		return err
	}))
	return sid, tty
}
