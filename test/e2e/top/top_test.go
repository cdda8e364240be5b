package top_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// soon is when anything is to have happened on a busy machine.
const soon = 20 * time.Second

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// terminal is a pseudo-terminal with portsentry top on it.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File // kept open, so that what the program leaves can be looked at
	cmd    *exec.Cmd
	before unix.Termios
	ended  chan error

	mu     sync.Mutex
	screen *screen
}

// openTerminal gives both ends of a pseudo-terminal.
func openTerminal(t *testing.T, rows, columns uint16) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	check(t, err)
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	check(t, err)
	check(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	check(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	check(t, err)
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func newTerminal(t *testing.T, ns *pktgen.NS, rows, columns uint16, socket string) *terminal {
	t.Helper()
	master, slave := openTerminal(t, rows, columns)
	s := &terminal{t: t, master: master, slave: slave, ended: make(chan error, 1), screen: newScreen(int(rows), int(columns))}
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	check(t, err)
	s.before = *before
	s.cmd = exec.Command(lab.Binary(t), "top", "--socket", socket)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LC_ALL=C.UTF-8", "NO_COLOR=")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	check(t, ns.Do(s.cmd.Start))
	go func() { s.ended <- s.cmd.Wait() }()
	t.Cleanup(func() { s.cmd.Process.Kill() })
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := master.Read(b)
			s.mu.Lock()
			s.screen.write(b[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *terminal) shows() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.screen.String()
}

// wait waits until the screen has all of these words.
func (s *terminal) wait(words ...string) {
	s.t.Helper()
	for end := time.Now().Add(soon); ; {
		shown := s.shows()
		missing := ""
		for _, w := range words {
			if !strings.Contains(shown, w) {
				missing = w
			}
		}
		if missing == "" {
			return
		}
		select {
		case err := <-s.ended:
			s.t.Fatalf("top ended (%v); it showed\n%s", err, shown)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			s.t.Fatalf("no %q on the screen:\n%s", missing, shown)
		}
	}
}

func (s *terminal) press(keys string) {
	s.t.Helper()
	_, err := io.WriteString(s.master, keys)
	check(s.t, err)
}

// left reports what top has left behind on the terminal once it has ended.
func (s *terminal) left() {
	s.t.Helper()
	select {
	case err := <-s.ended:
		check(s.t, err)
	case <-time.After(soon):
		s.t.Fatalf("top goes on:\n%s", s.shows())
	}
	after, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
	check(s.t, err)
	if *after != s.before {
		s.t.Errorf("the terminal was %+v, is %+v", s.before, *after)
	}
	lab.Wait(s.t, soon, "the screen of before", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.screen.modes["?1049"]
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for mode, set := range s.screen.modes {
		if set != (mode == "?25") { // the cursor is to be seen
			s.t.Errorf("mode %s: %v", mode, set)
		}
	}
	if s.screen.kitty != 0 || len(s.screen.unknown) > 0 {
		s.t.Errorf("%d keyboard modes are left; not understood: %q", s.screen.kitty, s.screen.unknown)
	}
}

// A scan shows in every pane, a key lifts the real ban, the daemon comes back after it
// was gone, and in the end the terminal is as it was.
func TestTop(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	check(t, l.Scanner.StaticNeighbours())
	lab.NeedProgram(t, "nmap", "nmap")
	ignore := filepath.Join(t.TempDir(), "ignore")
	check(t, os.WriteFile(ignore, nil, 0o600))
	config := map[string]string{
		"TCP_PORTS": "1,11,23", "UDP_PORTS": "7", "IGNORE_FILE": ignore, "DATABASE_FILE": filepath.Join(t.TempDir(), "db"),
		"BLOCK_TCP": "1", "BLOCK_UDP": "0", "BLOCK_METHOD": "nftables", "SCAN_DETECT": "traps",
	}
	dir := t.TempDir()
	options := harness.Options{Binary: lab.Binary(t), NS: l.Host.NS, Dir: dir, Config: config}
	d := harness.MustStart(t, options)
	s := newTerminal(t, l.Host.NS, 24, 100, filepath.Join(dir, harness.SocketName))
	s.wait("active for", "0 bans", "[1 events]", "nothing yet", "q quit")

	who := l.Scanner.Addr4().String()
	lab.Nmap(t, l.Scanner.NS, "--max-retries", "0", "-sS", "-r", "-p", "1,11,23", l.Host.Addr4().String())
	s.wait("ban     "+who, "syn     "+who, "1 ban")
	s.press("2")
	s.wait("[2 sources]", "1 source by rate", who, "banned")
	s.press("3")
	s.wait("[3 ports]", "1/tcp")
	s.press("4")
	s.wait("[4 bans]", ">"+who, "syn to trap port 1, unverified")
	s.press("\r")
	s.wait(who+" is banned for another", "portsentry unban "+who)
	s.press("\x1b")
	s.wait("[4 bans]")
	s.press("u")
	s.wait("unban " + who + "? y/n")
	s.press("y")
	s.wait(who+" is no longer banned", "0 bans, newest first", "; 0 bans")
	st, err := d.Status(t.Context())
	check(t, err)
	if st.Bans != 0 {
		t.Errorf("%d bans stand", st.Bans)
	}
	s.press("b2") // nobody is left here to be banned
	s.wait("[2 sources]", ">"+who)
	s.press("b")
	s.wait("ban " + who + " for")
	s.press("2h\r")
	s.wait("ban " + who + " for 2h? y/n")
	s.press("y")
	s.wait("is banned for", "banned")

	check(t, d.Stop())
	s.wait("asked again every second: portsentry is not running", who)
	harness.MustStart(t, options)
	s.wait("active for", "1 ban")

	check(t, unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 5, Col: 100}))
	s.wait("top needs 40 columns and 10 lines; here are 100 and 5")
	s.press("q")
	s.left()
}

// SIGTERM leaves nothing behind either.
func TestTerminated(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	dir := t.TempDir()
	harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: l.Host.NS, Dir: dir, Config: map[string]string{"TCP_PORTS": "1", "DATABASE_FILE": "", "BLOCK_TCP": "0"}})
	s := newTerminal(t, l.Host.NS, 10, 40, filepath.Join(dir, harness.SocketName))
	s.wait("log only", "nothing yet")
	check(t, s.cmd.Process.Signal(syscall.SIGTERM))
	s.left()
}

// Where there is no terminal, or nobody to ask, the screen stays as it is.
func TestNoTerminal(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "socket")
	_, slave := openTerminal(t, 24, 80)
	for _, c := range []struct {
		name, term, said string
		on               *os.File
	}{
		{"a pipe", "xterm", "top needs a terminal", nil},
		{"dumb", "dumb", "TERM says", slave},
		{"no daemon", "xterm", "portsentry is not running", slave},
	} {
		cmd := exec.CommandContext(t.Context(), lab.Binary(t), "top", "--socket", nowhere)
		cmd.Env = append(os.Environ(), "TERM="+c.term)
		var said strings.Builder
		cmd.Stderr = &said
		if c.on != nil {
			cmd.Stdin, cmd.Stdout = c.on, c.on
		}
		err := cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(said.String(), c.said) {
			t.Errorf("%s: %v, %s", c.name, err, said.String())
		}
	}
}
