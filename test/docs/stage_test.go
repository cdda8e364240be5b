package docs

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/packaging"
	"portsentry/test/harness"
	"portsentry/test/lab"
	"portsentry/test/machine"
)

const (
	lineLimit = 60 * time.Second // for a command
	soon      = 20 * time.Second
)

// The addresses of the documents: the machine, and who scans it from elsewhere.
const (
	machine4, machine6 = "198.51.100.5/24", "2001:db8::5/64"
	scanner4, scanner6 = "203.0.113.9/24", "2001:db8:9::9/64"
)

// stage is what the lines of one document are typed on: a machine with
// portsentry as it ships, and another one that scans it.
type stage struct {
	t       *testing.T
	m       *machine.Machine
	scanner *pktgen.NS
	src     string // the source tree, with a built portsentry
	bin     string // stands for what the machine cannot have

	fore  *machine.Program // portsentry in the foreground of a terminal
	shown strings.Builder  // what ended commands have said
	ended []*machine.Program
}

func newStage(t *testing.T) *stage {
	t.Helper()
	lab.NeedRoot(t)
	n, err := pktgen.NewNet()
	check(t, err)
	t.Cleanup(func() { check(t, n.Close()) })
	l := &lab.Lab{Net: n}
	host, scanner := l.Space(t), l.Space(t)
	prefixes := func(s ...string) (out []netip.Prefix) {
		for _, p := range s {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	l.Join(t, host, scanner, prefixes(machine4, machine6), prefixes(scanner4, scanner6))
	for _, args := range []string{"route add 198.51.100.0/24 dev eth0", "route add 2001:db8::/64 dev eth0"} {
		lab.Command(t, scanner, append([]string{"ip"}, strings.Fields(args)...)...)
	}

	s := &stage{t: t, scanner: scanner}
	s.m = machine.New(t, host, slices.DeleteFunc([]string{"/etc/fail2ban", "/etc/logcheck", "/etc/logwatch", "/etc/init.d", "/etc/hosts.deny"},
		func(path string) bool { _, err := os.Lstat(path); return err != nil })...)
	// By a worse way than that of a document which makes such a network itself.
	s.m.Run("ip", "route", "add", "203.0.113.0/24", "dev", "eth0", "metric", "5000")
	s.m.Run("ip", "route", "add", "2001:db8:9::/64", "dev", "eth0", "metric", "5000")
	s.m.Run("ip", "link", "set", "lo", "up")
	s.m.Syslog() // what detaches logs there, or does not start
	s.furnish()
	return s
}

// furnish installs portsentry from the tree, as a package would.
func (s *stage) furnish() {
	t := s.t
	t.Helper()
	dir := t.TempDir()
	s.bin, s.src = filepath.Join(dir, "bin"), filepath.Join(dir, "src")
	for _, d := range []string{s.bin, s.src} {
		check(t, os.Mkdir(d, 0o755))
	}
	binary := lab.Binary(t)
	root, err := filepath.Abs(tree)
	check(t, err)
	entries, err := os.ReadDir(root)
	check(t, err)
	for _, e := range entries {
		if e.Name() != "portsentry" && !strings.HasPrefix(e.Name(), ".") {
			check(t, os.Symlink(filepath.Join(root, e.Name()), filepath.Join(s.src, e.Name())))
		}
	}
	for _, at := range []string{s.src, s.bin} {
		check(t, os.Symlink(binary, filepath.Join(at, "portsentry")))
	}
	for name, script := range fakes {
		check(t, os.WriteFile(filepath.Join(s.bin, name), []byte(script), 0o755))
	}
	s.m.Run("mount", "--bind", s.bin, "/usr/local/sbin") // first on PATH

	for from, to := range map[string]string{
		"portsentry.ignore":          "/etc/portsentry/portsentry.ignore",
		"init.d/portsentry":          "/etc/init.d/portsentry",
		"systemd/portsentry.service": "/etc/systemd/system/portsentry.service",
	} {
		text, err := os.ReadFile(filepath.Join(root, "packaging", filepath.FromSlash(from)))
		check(t, err)
		s.m.Write(to, string(text))
	}
	check(t, os.Chmod(s.m.Path("/etc/init.d/portsentry"), 0o755))
	s.m.Run("mkdir", "-p", "/var/lib/portsentry")
	s.m.Write("/etc/hosts.deny", "")
	s.config()
}

// config writes the shipped configuration, changed: of each two texts the first
// becomes the second.
func (s *stage) config(changes ...string) {
	s.t.Helper()
	text := string(packaging.Config())
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			s.t.Fatalf("the shipped configuration has no %s", changes[i])
		}
		text = strings.Replace(text, changes[i], changes[i+1], 1)
	}
	s.m.Write("/etc/portsentry/portsentry.conf", text)
}

// sh runs a line in a shell of the machine, or of the scanner, to its end.
func (s *stage) sh(line string, elsewhere bool) (said string, code int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), lineLimit)
	defer cancel()
	cmd := s.m.Command(ctx, "/bin/sh", "-c", line)
	cmd.Dir = s.src
	cmd.WaitDelay = time.Second // a daemon may keep its standard error
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	do := s.m.Do
	if elsewhere {
		do = s.scanner.Do
		cmd.Env = append(os.Environ(), "PATH="+s.bin+":"+os.Getenv("PATH"))
	}
	err := do(cmd.Run)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		s.t.Fatalf("%s: %v\n%s", line, err, out.Bytes())
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// must runs what prepares a line.
func (s *stage) must(line string) string {
	s.t.Helper()
	said, code := s.sh(line, false)
	if code != 0 {
		s.t.Fatalf("to prepare: %s: exit code %d\n%s", line, code, said)
	}
	return said
}

// foreground starts a line that stays, and waits until it says that it is ready.
func (s *stage) foreground(line string) {
	s.t.Helper()
	s.interrupt()
	s.fore = s.m.Start("/bin/sh", "-c", "cd "+s.src+"; exec "+line)
	lab.Wait(s.t, soon, line, func() bool {
		said := s.said(s.fore)
		if !s.fore.Running() {
			s.t.Fatalf("%s has ended:\n%s", line, said)
		}
		return strings.Contains(strings.ToLower(said), strings.ToLower(harness.ReadyLine)) // 1.x wrote it otherwise
	})
}

// interrupt is Ctrl-C.
func (s *stage) interrupt() {
	s.t.Helper()
	if s.fore == nil {
		return
	}
	if code := s.fore.Stop(syscall.SIGINT); code != 0 {
		s.t.Errorf("exit code %d after Ctrl-C\n%s", code, s.said(s.fore))
	}
	s.ended = append(s.ended, s.fore)
	s.fore = nil
}

func (s *stage) said(p *machine.Program) string {
	s.t.Helper()
	out, err := os.ReadFile(string(p.Out))
	check(s.t, err)
	errs, err := os.ReadFile(string(p.Err))
	check(s.t, err)
	return string(out) + string(errs)
}

// all is everything that has been shown so far.
func (s *stage) all() string {
	var b strings.Builder
	b.WriteString(s.shown.String())
	for _, p := range s.ended {
		b.WriteString(s.said(p))
	}
	if s.fore != nil {
		b.WriteString(s.said(s.fore))
	}
	return b.String()
}
