package hostsdeny

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain is also the main of the processes that TestManyProcesses starts.
func TestMain(m *testing.M) {
	path, name := os.Getenv("HOSTSDENY_TEST_FILE"), os.Getenv("HOSTSDENY_TEST_NAME")
	if path == "" {
		os.Exit(m.Run())
	}
	f := File{Path: path}
	for i := range eachProcess {
		line := fmt.Sprintf("ALL: 10.%s.0.%d", name, i)
		added, err := f.Add(line)
		if err == nil && i%2 == 1 {
			_, err = f.Remove(line)
		}
		if err != nil || !added {
			fmt.Fprintln(os.Stderr, line, added, err)
			os.Exit(1)
		}
	}
}

const eachProcess = 20

// TestManyProcesses: two helpers, or two daemons, lose no line of each other's.
func TestManyProcesses(t *testing.T) {
	f := file(t, "# mine\nALL: 192.0.2.1\n")
	var running []*exec.Cmd
	for i := range 3 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{"HOSTSDENY_TEST_FILE=" + f.Path, fmt.Sprintf("HOSTSDENY_TEST_NAME=%d", i)}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	for _, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	text := f.text(t)
	if n := strings.Count(text, "\n"); n != 2+len(running)*eachProcess/2 {
		t.Errorf("%d lines:\n%s", n, text)
	}
	for i := range running {
		for j := 0; j < eachProcess; j += 2 {
			if !strings.Contains(text, fmt.Sprintf("ALL: 10.%d.0.%d\n", i, j)) {
				t.Errorf("line %d of process %d is lost", j, i)
			}
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(f.Path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// TestLockOfTheDead: a lock file that a killed process left locks nobody out.
func TestLockOfTheDead(t *testing.T) {
	f := file(t, "")
	name := filepath.Join(filepath.Dir(f.Path), ".hosts.deny.portsentry-lock")
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	add(t, f, line, true)
}
