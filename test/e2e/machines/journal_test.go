package machines_test

import (
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"portsentry/test/lab"
	"portsentry/test/machine"
)

// journal is a systemd-journald of the test's own.
type journal struct {
	mu      sync.Mutex
	entries []map[string]string
}

func (j *journal) read(t *testing.T, conn *net.UnixConn) {
	b := make([]byte, 64<<10)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return
		}
		entry := make(map[string]string)
		for line := range strings.Lines(string(b[:n])) {
			name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			if !ok {
				t.Errorf("%q is no field", line)
			}
			entry[name] = value
		}
		j.mu.Lock()
		j.entries = append(j.entries, entry)
		j.mu.Unlock()
	}
}

func (j *journal) has(ok func(entry map[string]string) bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.entries {
		if ok(e) {
			return true
		}
	}
	return false
}

// TestJournal: started with its streams in the journal, the daemon sends entries with
// fields, and nothing by the streams.
func TestJournal(t *testing.T) {
	l := lab.New(t)
	m := machine.New(t, l.Host.NS)
	m.Write("/etc/portsentry/portsentry.conf", "TCP_PORTS=\"11\"\nBLOCK_TCP=\"1\"\nBLOCK_METHOD=\"auto\"\nIGNORE_FILE=\"\"\n")
	check(t, os.Link(lab.Binary(t), m.Path("/var/portsentry")))
	check(t, os.MkdirAll(m.Path("/run/systemd/journal"), 0o755))
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.Path("/run/systemd/journal/socket"), Net: "unixgram"})
	check(t, err)
	var j journal
	done := make(chan struct{})
	go func() { defer close(done); j.read(t, conn) }()
	t.Cleanup(func() { conn.Close(); <-done })

	p := m.Start("/bin/sh", "-c", `exec >/run/stream 2>&1; JOURNAL_STREAM=$(stat -c %d:%i /run/stream) exec /var/portsentry`)
	about := func(what string, want map[string]string) {
		t.Helper()
		lab.Wait(t, patience, what, func() bool {
			if !p.Running() {
				t.Fatalf("it ended: %s", m.Read("/run/stream"))
			}
			return j.has(func(e map[string]string) bool {
				for name, value := range want {
					if !strings.HasPrefix(e[name], value) {
						return false
					}
				}
				return true
			})
		})
	}
	about("the start", map[string]string{"MESSAGE": "Portsentry is now active", "PRIORITY": "5", "SYSLOG_IDENTIFIER": "portsentry", "PORTSENTRY_EVENT": "notice"})
	about("what is watched", map[string]string{"MESSAGE": "watching eth0", "PRIORITY": "6"})
	check(t, sender(t, l.Scanner).SendPacket(syn(l, 11)))
	scanner := l.Scanner.Addr4().String()
	about("the scan", map[string]string{
		"MESSAGE": "Scan from: [" + scanner + "]", "PORTSENTRY_EVENT": "sighting", "PORTSENTRY_SOURCE": scanner, "PORTSENTRY_PORT": "11",
		"PORTSENTRY_PROTOCOL": "tcp", "PORTSENTRY_KIND": "syn", "PORTSENTRY_EVIDENCE": "E1", "PORTSENTRY_BAN": scanner + "/32", "MESSAGE_ID": "b0936e16216b4dcda1e8c870e23c4b60",
	})
	about("the ban", map[string]string{"MESSAGE": "attackalert: Host " + scanner + " has been blocked via ", "PORTSENTRY_EVENT": "action"})
	if said := m.Read("/run/stream"); said != "" {
		t.Errorf("beside the journal it says %q", said)
	}
}
