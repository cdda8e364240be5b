package sight_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portsentry/test/harness"
	"portsentry/test/lab"
)

// TestFiles: two runs of a daemon that logs only add to the history and leave
// the file of who is blocked alone.
func TestFiles(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	dir := t.TempDir()
	history, blocked := filepath.Join(dir, "history"), filepath.Join(dir, "blocked")
	const (
		old       = "2026-11-21T00:04:38.815+0000 Scan from: [192.0.2.9] and so on\n"
		wasBanned = "1795218968 - 11/20/2026 23:56:08 Host: 192.0.2.9/192.0.2.9 Port: 1 TCP Blocked\n"
	)
	write(t, history, old)
	write(t, blocked, wasBanned)
	stamp := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4} `)
	want := strings.Split(strings.TrimSuffix(old, "\n"), "\n")
	for range 2 {
		d := l.Start(t, map[string]string{"TCP_PORTS": "11,61001", "HISTORY_FILE": history, "BLOCKED_FILE": blocked})
		w := watch(t, l, d.Out)
		w.sendPacket(t, w.packet(11, false, nil))
		w.sendPacket(t, w.packet(11, true, nil))
		w.scans(t)
		if err := d.Stop(); err != nil {
			t.Fatal(err)
		}
		for _, line := range lines(t, d.Out) {
			if strings.HasPrefix(line, harness.ScanPrefix) {
				want = append(want, line)
			}
		}
		text, err := os.ReadFile(history)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		for i := 1; i < len(got); i++ {
			if !stamp.MatchString(got[i]) {
				t.Errorf("no time before %q", got[i])
			}
			got[i] = stamp.ReplaceAllString(got[i], "")
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("history, and the lines on standard output (-want +got):\n%s", d)
		}
		text, err = os.ReadFile(blocked)
		if d := cmp.Diff(wasBanned, string(text)); d != "" || err != nil {
			t.Errorf("blocked file: %v (-want +got):\n%s", err, d)
		}
	}
}

// TestNoFiles: what is not there is not made, but for the history.
func TestNoFiles(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	dir := t.TempDir()
	history, blocked := filepath.Join(dir, "var", "lib", "history"), filepath.Join(dir, "blocked")
	d := l.Start(t, map[string]string{"TCP_PORTS": "11,61001", "HISTORY_FILE": history, "BLOCKED_FILE": blocked})
	w := watch(t, l, d.Out)
	w.sendPacket(t, w.packet(11, false, nil))
	w.scans(t)
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(history)
	if n := strings.Count(string(text), "\n"); err != nil || n != 3 {
		t.Errorf("%d lines of history, %v", n, err)
	}
	if _, err := os.Stat(blocked); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("blocked file: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
