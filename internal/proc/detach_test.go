package proc

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// parent is what somebody starts at a terminal: it detaches a daemon.
func parent() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if d, err := time.ParseDuration(os.Getenv("LIMIT")); err == nil {
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	os.Setenv("PROC_TEST_CHILD", "daemon")
	os.Exit(Detach(ctx, os.Args[1:], os.Stderr))
}

// lines is more than fits into a pipe.
var lines = strings.Repeat("a warning\n", 20000)

// daemon is what Detach starts. It writes what it has into $DIR/report when it
// is ready and ends on SIGTERM.
func daemon() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	n, ok := Detached()
	dir := os.Getenv("DIR")
	switch os.Args[1] {
	case "ready":
		os.WriteFile(filepath.Join(dir, "report"), []byte(daemonReport(ok)), 0o666)
		if !ok {
			os.Exit(6)
		}
	case "helper": // it holds standard error as long as it lives
		if _, err := StartHelper(nil, []string{"PROC_TEST_CHILD=echo"}); err != nil {
			failed("%v", err)
		}
	case "wordy":
		fmt.Fprint(os.Stderr, lines)
	case "twice":
		fmt.Fprint(os.Stderr, "one\n")
		for _, err := os.Stat(filepath.Join(dir, "heard")); err != nil; _, err = os.Stat(filepath.Join(dir, "heard")) {
			unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil)
		}
		fmt.Fprint(os.Stderr, "two\n")
	case "mistaken":
		fmt.Fprintln(os.Stderr, "portsentry.conf:3: no such key")
		os.Exit(3)
	case "ended":
		os.Exit(0)
	case "crash":
		panic("gone wrong")
	case "killed":
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	case "slow": // it can be told to stop
		os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(os.Getpid())), 0o600)
		<-term
		fmt.Fprintln(os.Stderr, "stopping")
		os.Exit(0)
	}
	// Before the parent goes on: a test that is over ends whom it knows of.
	os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(os.Getpid())), 0o600)
	if err := n.Ready(); err != nil {
		failed("%v", err)
	}
	fmt.Fprintln(os.Stderr, "nobody hears this")
	os.WriteFile(filepath.Join(dir, "on its own"), nil, 0o600)
	<-term
	os.Exit(0)
}

func daemonReport(detached bool) string {
	cwd, _ := os.Getwd()
	sid, _ := unix.Getsid(0)
	stdout, _ := os.Readlink("/proc/self/fd/1")
	comm, _ := os.ReadFile("/proc/self/comm")
	_, marked := os.LookupEnv(detachMark)
	_, notify := os.LookupEnv(notifySocket)
	// The child's report counts the descriptors: input, output, error, ready.
	return fmt.Sprintf("detached %v, cwd %s, session leader %v, stdout %s, name %s, mark %v, notify %v, umask %03o, KEY=%s, %s",
		detached, cwd, sid == os.Getpid(), stdout, strings.TrimSpace(string(comm)), marked, notify, unix.Umask(0o022), os.Getenv("KEY"),
		strings.SplitAfter(childReport(), "/dev/null")[0])
}

// detach runs a parent and returns its exit code and what came out of it. That
// it returns at all while the daemon lives shows that the daemon has let go of
// the parent's output.
func detach(t *testing.T, dir, how string, env ...string) (code int, said string) {
	t.Helper()
	cmd := exec.CommandContext(within(t, 20*time.Second), "/proc/self/exe", how)
	cmd.Args[0] = "portsentry"
	cmd.Env = append([]string{promptly, "PROC_TEST_CHILD=parent", "DIR=" + dir}, env...)
	t.Cleanup(func() { stopDaemon(t, dir) })
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// stopDaemon ends the daemon, if there is one, and waits until it is gone.
func stopDaemon(t *testing.T, dir string) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		b, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			return
		}
		pid, err := strconv.Atoi(string(b))
		if err == nil && ended(pid) {
			return
		}
		if err == nil {
			unix.Kill(pid, unix.SIGTERM)
		}
		if time.Now().After(deadline) {
			t.Fatalf("daemon %q does not end", b)
		}
		wait(t)
	}
}

// ended reports whether pid is no process any more, or one that waits for init
// to take note.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// wait is a moment in a loop that has a deadline.
func wait(t *testing.T) {
	select {
	case <-t.Context().Done():
	case <-time.After(5 * time.Millisecond):
	}
}

func TestDetach(t *testing.T) {
	for _, c := range []struct {
		how  string
		code int
		said string // exactly
	}{
		{"quiet", 0, ""},
		{"helper", 0, ""},
		{"wordy", 0, lines},
		{"mistaken", 3, "portsentry.conf:3: no such key\n"},
		{"ended", 1, "the daemon ended before it was ready\n"},
		{"killed", 1, "the daemon ended before it was ready: signal: killed\n"},
	} {
		t.Run(c.how, func(t *testing.T) {
			t.Parallel()
			code, said := detach(t, t.TempDir(), c.how)
			if code != c.code || said != c.said {
				t.Errorf("code %d, %d bytes: %.200q; want %d, %.200q", code, len(said), said, c.code, c.said)
			}
		})
	}
	t.Run("crash", func(t *testing.T) {
		t.Parallel()
		code, said := detach(t, t.TempDir(), "crash")
		if code != 2 || !strings.Contains(said, "panic: gone wrong") {
			t.Errorf("code %d: %s", code, said)
		}
	})
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		code, said := detach(t, dir, "slow", "LIMIT=1500ms")
		if code != 1 || !strings.HasPrefix(said, "stopping\nthe daemon was not ready after ") || !strings.HasSuffix(said, "s and was stopped\n") {
			t.Errorf("code %d: %s", code, said)
		}
		b, err := os.ReadFile(filepath.Join(dir, "pid"))
		pid, _ := strconv.Atoi(string(b))
		if err != nil || !ended(pid) {
			t.Errorf("daemon %q goes on: %v", b, err)
		}
	})
}

// slowReader is a terminal that takes its first line only when the daemon is
// ready.
type slowReader struct {
	t    *testing.T
	dir  string
	took strings.Builder
}

func (s *slowReader) Write(b []byte) (int, error) {
	if s.took.Len() == 0 {
		os.WriteFile(filepath.Join(s.dir, "heard"), nil, 0o600)
		for {
			if _, err := os.Stat(filepath.Join(s.dir, "on its own")); err == nil {
				break
			}
			wait(s.t)
		}
	}
	return s.took.Write(b)
}

// What the daemon said before it was ready is heard, even late.
func TestDetachHearsAll(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PROC_TEST_CHILD", "daemon")
	t.Setenv("DIR", dir)
	t.Cleanup(func() { stopDaemon(t, dir) })
	out := &slowReader{t: t, dir: dir}
	if code := Detach(within(t, 10*time.Second), []string{"twice"}, out); code != 0 || out.took.String() != "one\ntwo\n" {
		t.Errorf("code %d: %q", code, out.took.String())
	}
}

// A daemon has nothing of whoever started it but the environment.
func TestDetachedInheritsNothing(t *testing.T) {
	leak, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // no close-on-exec, as a shell leaves it
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	for umask, want := range map[int]string{0: "022", 0o077: "077"} {
		dir := t.TempDir()
		old := unix.Umask(umask)
		code, said := detach(t, dir, "ready", "KEY=value", "NOTIFY_SOCKET=/run/notify", detachMark+"=left over")
		unix.Umask(old)
		if code != 0 || said != "" {
			t.Errorf("code %d: %s", code, said)
		}
		report, err := os.ReadFile(filepath.Join(dir, "report"))
		want := "detached true, cwd /, session leader true, stdout /dev/null, name portsentry, mark false, notify false, umask " + want + ", KEY=value, fds 4, stdin /dev/null"
		if err != nil || string(report) != want {
			t.Errorf("umask %03o: %v\n got %s\nwant %s", umask, err, report, want)
		}
	}
}

// Ctrl-C at the terminal reaches the daemon through its parent.
func TestDetachInterrupted(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(within(t, 20*time.Second), "/proc/self/exe", "slow")
	cmd.Env = []string{promptly, "PROC_TEST_CHILD=parent", "DIR=" + dir}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopDaemon(t, dir) })
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		if b, _ := os.ReadFile(filepath.Join(dir, "pid")); len(b) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not start")
		}
		wait(t)
	}
	cmd.Process.Signal(os.Interrupt)
	said, _ := io.ReadAll(stderr)
	cmd.Wait()
	want := "stopping\nthe daemon was stopped before it was ready: context canceled\n"
	if code := cmd.ProcessState.ExitCode(); code != 1 || string(said) != want {
		t.Errorf("code %d: %q, want %q", code, said, want)
	}
}

// A mark that is left over in an environment makes nobody a daemon, whatever
// its descriptors are.
func TestDetachedByHand(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, mark := range []string{"", "1", "pipe:[1]"} {
		for _, given := range [][]*os.File{nil, {w}} {
			dir := t.TempDir()
			cmd := exec.CommandContext(within(t, 10*time.Second), "/proc/self/exe", "ready")
			cmd.Env = []string{promptly, "PROC_TEST_CHILD=daemon", "DIR=" + dir, detachMark + "=" + mark}
			cmd.ExtraFiles = given
			cmd.Run()
			report, err := os.ReadFile(filepath.Join(dir, "report"))
			if err != nil || !strings.HasPrefix(string(report), "detached false") || !strings.Contains(string(report), "mark false") {
				t.Errorf("mark %q: %v %s", mark, err, report)
			}
		}
	}
}

// What the daemon opens is not inherited by what it starts.
func TestSocketsAreNotInherited(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := WritePID(filepath.Join(t.TempDir(), "pid"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Remove()
	out, err := exec.Command("/bin/ls", "-l", "/proc/self/fd").Output()
	if err != nil || strings.Contains(string(out), "socket:") || strings.Contains(string(out), p.path) {
		t.Errorf("%v\n%s", err, out)
	}
}
