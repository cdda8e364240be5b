package machine

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"portsentry/test/lab"
)

// Entry is one message to syslog, as syslog(3) sends them.
type Entry struct {
	Priority int // facility and severity; -1 for a datagram that is in no such form
	Tag      string
	PID      int    // as the machine knows it, 0 when the message has none
	Text     string // of a datagram in another form all of it
}

// String is the message without its time.
func (e Entry) String() string {
	if e.PID == 0 {
		return fmt.Sprintf("<%d>%s: %s", e.Priority, e.Tag, e.Text)
	}
	return fmt.Sprintf("<%d>%s[%d]: %s", e.Priority, e.Tag, e.PID, e.Text)
}

// Syslog takes what is sent to /dev/log of a machine.
type Syslog struct {
	m    *Machine
	conn *net.UnixConn
	done chan struct{}

	mu      sync.Mutex
	entries []Entry
}

// Syslog opens /dev/log, which no machine has to begin with, until the test
// ends or Close.
func (m *Machine) Syslog() *Syslog {
	m.t.Helper()
	path := m.Path("/dev/log")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	check(m.t, err)
	check(m.t, os.Chmod(path, 0o666))
	s := &Syslog{m: m, conn: conn, done: make(chan struct{})}
	go s.read()
	m.t.Cleanup(s.Close)
	return s
}

// Close takes /dev/log away, as a syslog daemon does that is stopped.
func (s *Syslog) Close() {
	if s.conn.Close() == nil { // the first time
		os.Remove(s.m.Path("/dev/log"))
	}
	<-s.done
}

func (s *Syslog) read() {
	defer close(s.done)
	b := make([]byte, 64<<10)
	for {
		n, err := s.conn.Read(b)
		if err != nil {
			return
		}
		e := parse(string(b[:n]))
		s.mu.Lock()
		s.entries = append(s.entries, e)
		s.mu.Unlock()
	}
}

var entryForm = regexp.MustCompile(`^<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d ([^ \[:]+)(?:\[(\d+)\])?: ((?s:.*))$`)

// parse reads a datagram. Some programs end theirs with a newline or a NUL, and
// a syslog daemon does not keep that.
func parse(datagram string) Entry {
	datagram = strings.TrimRight(datagram, "\n\x00")
	f := entryForm.FindStringSubmatch(datagram)
	if f == nil {
		return Entry{Priority: -1, Text: datagram}
	}
	priority, _ := strconv.Atoi(f[1])
	pid, _ := strconv.Atoi(f[3])
	return Entry{priority, f[2], pid, f[4]}
}

// Entries are the messages so far.
func (s *Syslog) Entries() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.entries)
}

// Wait waits for a message with all the parts, and ends the test when none
// comes within limit.
func (s *Syslog) Wait(limit time.Duration, parts ...string) (found Entry) {
	s.m.t.Helper()
	lab.Wait(s.m.t, limit, "a message with "+strings.Join(parts, " and "), func() bool {
		all := s.Entries()
		i := slices.IndexFunc(all, func(e Entry) bool {
			return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(e.Text, p) })
		})
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}
