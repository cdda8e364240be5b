package proc

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNotify(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@portsentry-test-%d", os.Getpid())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		t.Setenv(notifySocket, name)
		tell := func(state ...string) string {
			t.Helper()
			if err := Notify(state...); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 4096)
			l.SetReadDeadline(time.Now().Add(5 * time.Second))
			n, err := l.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			return string(b[:n])
		}
		if got, want := tell("READY=1", "STATUS=watching eth0"), "READY=1\nSTATUS=watching eth0"; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		var before, after unix.Timespec
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
		got := tell("RELOADING=1")
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
		m := regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=(\d+)$`).FindStringSubmatch(got)
		if m == nil {
			t.Fatalf("%s: %q", name, got)
		}
		if at, _ := strconv.ParseInt(m[1], 10, 64); at < before.Nano()/1000 || at > after.Nano()/1000 {
			t.Errorf("%s: %d is not between %d and %d", name, at, before.Nano()/1000, after.Nano()/1000)
		}
	}
}

func TestNotifyNobody(t *testing.T) {
	t.Setenv(notifySocket, "")
	if err := Notify("READY=1"); err != nil {
		t.Error(err)
	}
	t.Setenv(notifySocket, filepath.Join(t.TempDir(), "nothing"))
	if err := Notify("READY=1"); err == nil {
		t.Error("told nobody, and no error")
	}
}

// A service manager that does not read holds us up for a moment only.
func TestNotifyDeaf(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv(notifySocket, name)
	for range 1 << 16 {
		if err := Notify("READY=1"); err != nil {
			return
		}
	}
	t.Error("the socket took everything")
}

func TestWatchdogEvery(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0}, {"30000000", "", 15 * time.Second}, {"30000000", self, 15 * time.Second}, {"30000000", "1", 0},
		{"0", self, 0}, {"x", self, 0}, {"-1", self, 0}, {"18446744073709551615", self, 0}, {"18446744073709551616", self, 0},
	} {
		t.Setenv("WATCHDOG_USEC", tt.usec)
		t.Setenv("WATCHDOG_PID", tt.pid)
		if got := WatchdogEvery(); got != tt.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %v, want %v", tt.usec, tt.pid, got, tt.want)
		}
	}
}
