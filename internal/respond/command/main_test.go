package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/proc"
	"portsentry/internal/respond"
)

// TestMain is also the main of the helper that the tests start.
func TestMain(m *testing.M) {
	templates := os.Getenv("COMMAND_TEST_HELPER")
	if templates == "" {
		os.Exit(m.Run())
	}
	var t Templates
	err := json.Unmarshal([]byte(templates), &t)
	conn, cerr := proc.HelperConn()
	if err = errors.Join(err, cerr); err == nil {
		err = Serve(context.Background(), conn, fixed(t), nil, new(Pace))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// deadline is far off for a machine that is busy, and never reached on one that is not.
const deadline = 20 * time.Second

var host = netip.MustParseAddr("10.77.0.2")

// pair returns both ends of a socket like the helper's.
func pair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

// fixed is a configuration that never changes.
func fixed(t Templates) func() (Templates, error) {
	return func() (Templates, error) { return t, nil }
}

// serve runs a server in this process until the test ends.
func serve(t *testing.T, templates Templates, deny HostsDeny, tweak func(*server)) *net.UnixConn {
	t.Helper()
	ours, theirs := pair(t)
	s := newServer(theirs, fixed(templates), deny, new(Pace))
	if tweak != nil {
		tweak(s)
	}
	served := make(chan error)
	if err := s.reload(); err != nil {
		t.Fatal(err)
	}
	go func() { served <- s.serve(context.Background()) }()
	t.Cleanup(func() {
		ours.Close()
		if err := <-served; err != nil {
			t.Error("serve:", err)
		}
		theirs.Close()
	})
	return ours
}

// stealth is how both protocols are watched where it does not matter.
var stealth = config.Modes{TCP: config.Stealth, UDP: config.Stealth}

// client runs a Client until the test ends.
func client(t *testing.T, conn *net.UnixConn, m config.Modes, d config.Dialect) *Client {
	t.Helper()
	c := NewClient(conn, m, d)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error("Run:", err)
		}
	})
	return c
}

func order(h netip.Addr, steps ...respond.Step) respond.Order {
	return respond.Order{Steps: steps, Host: h, Port: 23, Proto: 6, Kind: 1, Flags: 2, Count: 1, Evidence: 1}
}

// do submits o and waits for what comes of it.
func do(t *testing.T, c *Client, o respond.Order) []respond.Action {
	t.Helper()
	got := make(chan []respond.Action, 1)
	if !c.Submit(o, func(a []respond.Action) { got <- a }) {
		t.Fatal("the order was refused")
	}
	select {
	case a := <-got:
		return a
	case <-time.After(deadline):
		t.Fatal("no answer")
	}
	return nil
}

// eventually polls ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(deadline)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-end:
			t.Fatal("not in time: " + what)
		case <-tick.C:
		}
	}
}

// fakeDeny is a hosts.deny in memory that watches who calls at the same time.
type fakeDeny struct {
	mu      sync.Mutex
	lines   []string
	now     map[string]int
	worst   int // calls at once
	overlap bool
	pause   time.Duration
	err     error
}

func (d *fakeDeny) call(line string, do func() bool) (bool, error) {
	d.mu.Lock()
	if d.now == nil {
		d.now = make(map[string]int)
	}
	d.now[line]++
	d.overlap = d.overlap || d.now[line] > 1
	d.worst = max(d.worst, len(d.now))
	d.mu.Unlock()
	if d.pause > 0 {
		<-time.After(d.pause)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now[line]--; d.now[line] == 0 {
		delete(d.now, line)
	}
	return d.err == nil && do(), d.err
}

func (d *fakeDeny) index(line string) int {
	for i, l := range d.lines {
		if l == line {
			return i
		}
	}
	return -1
}

func (d *fakeDeny) Add(line string) (bool, error) {
	return d.call(line, func() bool {
		if d.index(line) >= 0 {
			return false
		}
		d.lines = append(d.lines, line)
		return true
	})
}

func (d *fakeDeny) Remove(line string) (bool, error) {
	return d.call(line, func() bool {
		i := d.index(line)
		if i < 0 {
			return false
		}
		d.lines = append(d.lines[:i], d.lines[i+1:]...)
		return true
	})
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// realHelper starts a helper process.
func realHelper(t *testing.T, templates Templates) *proc.Helper {
	t.Helper()
	b, err := json.Marshal(templates)
	if err != nil {
		t.Fatal(err)
	}
	// A secret of ours and a descriptor that lacks close-on-exec: no command may see either.
	t.Setenv("DAEMON_SECRET", "1")
	leak, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	h, err := proc.StartHelper(nil, []string{"COMMAND_TEST_HELPER=" + string(b), "HELPERS_SECRET=1"})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func stop(t *testing.T, h *proc.Helper) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	return h.Stop(ctx)
}

// TestCommandSeesNothing: a command has three descriptors, a clean environment,
// the root directory, a session of its own.
func TestCommandSeesNothing(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	h := realHelper(t, Templates{RunCmd: "exec > " + out + "; env | sort; pwd; ls /proc/$$/fd | tr '\\n' ' '; echo; " +
		"readlink /proc/$$/fd/0; cut -d' ' -f6 /proc/$$/stat; echo $$; grep SigIgn /proc/$$/status"})
	c := client(t, h.Conn(), stealth, config.Dialect2x)
	a := do(t, c, order(host, respond.StepCommand))
	if a[0].Err != nil {
		t.Fatal(a[0].Err)
	}
	lines := strings.Split(read(t, out), "\n")
	env := (&request{host: host, port: 23, flags: 2, count: 1, proto: 6, mode: config.Stealth, kind: 1, evidence: 1}).environ()
	for _, l := range lines {
		name, _, isVar := strings.Cut(l, "=")
		// The shell sets PWD and its like itself.
		if isVar && name != "PWD" && name != "OLDPWD" && name != "SHLVL" && name != "_" && !strings.Contains(strings.Join(env, "\n"), l) {
			t.Errorf("in the environment: %s", l)
		}
	}
	for _, l := range env {
		if !strings.Contains("\n"+strings.Join(lines, "\n")+"\n", "\n"+l+"\n") {
			t.Errorf("not in the environment: %s", l)
		}
	}
	tail := lines[len(lines)-7:]
	if tail[0] != "/" || tail[1] != "0 1 2 " || tail[2] != "/dev/null" {
		t.Errorf("directory %q, descriptors %q, input %q", tail[0], tail[1], tail[2])
	}
	if tail[3] != tail[4] {
		t.Errorf("session %s, not its own (%s)", tail[3], tail[4])
	}
	ignored, err := strconv.ParseUint(strings.TrimPrefix(tail[5], "SigIgn:\t"), 16, 64)
	// 32 and 33 belong to the C library and come down from whoever started us.
	if ignored &^= 1<<31 | 1<<32; err != nil || ignored != 0 {
		t.Errorf("ignored signals: %s", tail[5])
	}
}

var _ respond.Runner = (*Client)(nil)
