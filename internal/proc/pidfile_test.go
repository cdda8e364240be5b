package proc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holdPID holds $FILE until its input ends.
func holdPID() {
	p, err := WritePID(os.Getenv("FILE"))
	fmt.Println(err)
	io.Copy(io.Discard, os.Stdin)
	if err == nil {
		err = p.Remove()
	}
	if err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// holder starts another process that holds path. The returned functions end it
// in order and by force.
func holder(t *testing.T, path string) (pid int, stop, kill func()) {
	t.Helper()
	cmd := exec.CommandContext(within(t, 20*time.Second), "/proc/self/exe")
	cmd.Env = []string{promptly, "PROC_TEST_CHILD=pidfile", "FILE=" + path}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "<nil>\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	stop = func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	kill = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	return cmd.Process.Pid, stop, kill
}

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPIDFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "portsentry.pid")
	pid, stop, _ := holder(t, path)
	if got, want := text(t, path), fmt.Sprintf("%d\n", pid); got != want {
		t.Errorf("file %q, want %q", got, want)
	}
	_, err := WritePID(path)
	want := fmt.Sprintf("pid file %s: portsentry is already running with pid %d", path, pid)
	if !errors.Is(err, ErrRunning) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	stop()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}

	// One that a crash left behind is taken over, whatever is in it.
	_, _, kill := holder(t, path)
	kill()
	if err := os.WriteFile(path, []byte(strings.Repeat("1", 100)), 0); err != nil {
		t.Fatal(err)
	}
	p, err := WritePID(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text(t, path), fmt.Sprintf("%d\n", os.Getpid()); got != want {
		t.Errorf("file %q, want %q", got, want)
	}

	// Another one in its place is not ours to remove.
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	_, stop, _ = holder(t, path)
	if err := p.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	stop()
}

// A file that its holder has not written yet has no number.
func TestPIDFileUnwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	_, err = WritePID(path)
	if want := "pid file " + path + ": portsentry is already running"; !errors.Is(err, ErrRunning) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestPIDFileRefuses(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		name string
		make func(path string) error
		want string // part of the error
	}{
		{"symlink", func(p string) error { return os.Symlink(victim, p) }, "is a symbolic link; remove it"},
		{"dangling", func(p string) error { return os.Symlink(in("nothing"), p) }, "is a symbolic link; remove it"},
		{"hardlink", func(p string) error { return os.Link(victim, p) }, "no plain file of ours alone; remove it"},
		{"fifo", func(p string) error { return unix.Mkfifo(p, 0o600) }, "no plain file of ours alone; remove it"},
		{"folder", func(p string) error { return os.Mkdir(p, 0o700) }, "is a directory"},
		{"missing/pid", func(string) error { return nil }, "no such file or directory; its folder must exist: mkdir " + in("missing")},
	} {
		if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		path := in(c.name)
		if err := c.make(path); err != nil {
			t.Fatal(err)
		}
		_, err := WritePID(path)
		if err == nil || !strings.HasPrefix(err.Error(), "pid file "+path+": ") || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if got := text(t, victim); got != "precious" {
			t.Errorf("%s: the victim has %q", c.name, got)
		}
		if _, err := os.Lstat(in("nothing")); err == nil {
			t.Errorf("%s: what the link names was made", c.name)
		}
	}
	if os.Getuid() == 0 {
		path := in("foreign")
		if err := errors.Join(os.WriteFile(path, nil, 0o666), os.Chown(path, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		if _, err := WritePID(path); err == nil || !strings.Contains(err.Error(), "of ours alone") {
			t.Errorf("another user's file: %v", err)
		}
	}
}

// There is one holder at any time, also while the file comes and goes.
func TestPIDFileContended(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	var holders atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 2000 {
				p, err := WritePID(path)
				if err != nil {
					continue
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d holders", n)
				}
				runtime.Gosched()
				holders.Add(-1)
				if err := p.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// A relative path is that of the folder at the time.
// Everybody may read the file, and so lock it: that keeps nobody from starting.
func TestPIDFileLockedByStranger(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil { // as /run is
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "pid")
	if err := os.WriteFile(path, []byte("1\n"), 0o644); err != nil { // left by a crash
		t.Fatal(err)
	}
	cmd := exec.CommandContext(within(t, 20*time.Second), "setpriv", "--reuid=65534", "--clear-groups",
		"flock", "--exclusive", path, "sh", "-c", "echo locked; read end")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the stranger: %q, %v", line, err)
	}
	p, err := WritePID(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text(t, path), fmt.Sprintln(os.Getpid()); got != want {
		t.Errorf("the file says %q, want %q", got, want)
	}
	if err := p.Remove(); err != nil {
		t.Error(err)
	}
	stdin.Close()
	cmd.Wait()
}

func TestPIDFileRelative(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	p, err := WritePID("pid")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("/")
	if err := p.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "pid")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}
