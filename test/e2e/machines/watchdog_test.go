package machines_test

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"portsentry/test/harness"
	"portsentry/test/lab"
)

// TestWatchdog: a service manager that asks for it hears that decisions are made.
func TestWatchdog(t *testing.T) {
	l := lab.New(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	check(t, err)
	defer conn.Close()
	heard := make(chan string, 100)
	go func() {
		defer close(heard)
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			heard <- string(b[:n])
		}
	}()
	harness.MustStart(t, harness.Options{
		Binary: lab.Binary(t), NS: l.Host.NS, Dir: dir, Config: map[string]string{"TCP_PORTS": "11", "IGNORE_FILE": "", "BLOCK_TCP": "0", "BLOCK_UDP": "0"},
		Env: []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=100000"},
	})
	for beats := 0; beats < 3; {
		select {
		case s := <-heard:
			if s == "WATCHDOG=1" {
				beats++
			}
		case <-time.After(patience):
			t.Fatalf("%d beats", beats)
		}
	}
}
