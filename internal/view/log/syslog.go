package log

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"portsentry/internal/config"
)

// DevLog is where syslog daemons listen.
const DevLog = "/dev/log"

// Priorities: facility daemon (3), RFC 3164 section 4.1.1.
const (
	daemonErr    = 3<<3 | 3
	daemonNotice = 3<<3 | 5
	daemonInfo   = 3<<3 | 6
	daemonDebug  = 3<<3 | 7
)

const (
	sendTime  = 200 * time.Millisecond // one attempt waits no longer for a busy daemon
	firstWait = 100 * time.Millisecond // before a daemon that is not there is looked for again
	mostWait  = 5 * time.Second
)

// Syslog sends lines to the syslog daemon in the form of RFC 3164 section 4.1,
// as syslog(3) does. A daemon that is not there, or comes back, is looked for
// again with growing patience; meanwhile lines wait in the bounded buffer of the
// Writer that has the Syslog.
type Syslog struct {
	path   string
	tag    string        // "portsentry[123]: "
	closed chan struct{} // no attempt is made twice any more

	// Of the goroutine that delivers.
	conn   net.Conn // nil: not connected
	stream bool     // a stream has no ends of its own: lines end in newlines

	mu  sync.Mutex
	err error // why lines wait; nil: they do not
}

// OpenSyslog connects to the socket at path, DevLog by default. The Syslog is of
// use whatever the error, which says what is wrong for the moment.
func OpenSyslog(path string) (*Syslog, error) {
	s := &Syslog{path: path, tag: "portsentry[" + strconv.Itoa(os.Getpid()) + "]: ", closed: make(chan struct{})}
	if s.path == "" {
		s.path = DevLog
	}
	if err := s.dial(); err != nil {
		s.note(err)
		return s, s.Err()
	}
	return s, nil
}

// Err says why lines wait at the moment; nil: they do not.
func (s *Syslog) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err == nil:
		return nil
	case errors.Is(s.err, fs.ErrNotExist), errors.Is(s.err, syscall.ECONNREFUSED):
		return fmt.Errorf("no syslog daemon takes the log: %w; is rsyslog or systemd-journald running?", s.err)
	}
	return fmt.Errorf("the syslog daemon does not take the log: %w", s.err)
}

// Held says why lines for the system log wait at the moment; nil: they do not.
func (w *Writer) Held() error {
	if w.o.Syslog == nil {
		return nil
	}
	return w.o.Syslog.Err()
}

func (s *Syslog) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// giveUp ends the patience: what cannot be sent at once is lost.
func (s *Syslog) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
}

// appendHeader appends what stands before a line. The time is local.
func (s *Syslog) appendHeader(b []byte, priority int, at time.Time) []byte {
	b = strconv.AppendInt(append(b, '<'), int64(priority), 10)
	b = at.AppendFormat(append(b, '>'), "Jan _2 15:04:05 ")
	return append(b, s.tag...)
}

// deliver sends lines, each with its header.
func (s *Syslog) deliver(_ int, lines []byte) (lost uint64, err error) {
	for line := range bytes.Lines(lines) {
		if serr := s.send(line); serr != nil {
			lost++
			err = serr
		}
	}
	return lost, err
}

// send gets one line out, however long it takes: those behind it wait, or are
// counted. It fails after giveUp, and with a line that no daemon takes.
func (s *Syslog) send(line []byte) error {
	for wait := firstWait; ; {
		err := s.try(line)
		if err == nil || errors.Is(err, syscall.EMSGSIZE) {
			s.note(nil)
			return err
		}
		s.note(err)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			wait = 0 // it has waited
		}
		select {
		case <-s.closed:
			return err
		case <-time.After(wait):
		}
		wait = max(firstWait, min(2*wait, mostWait))
	}
}

// try sends line once: twice where the first attempt finds that the daemon has
// gone, for another may be there by now.
func (s *Syslog) try(line []byte) error {
	again := s.conn != nil
	if s.conn == nil {
		if err := s.dial(); err != nil {
			return err
		}
	}
	text := line
	if !s.stream {
		text = bytes.TrimSuffix(line, []byte{'\n'})
	}
	s.conn.SetWriteDeadline(time.Now().Add(sendTime))
	n, err := s.conn.Write(text)
	switch {
	case err == nil, errors.Is(err, syscall.EMSGSIZE),
		errors.Is(err, syscall.ENOBUFS), errors.Is(err, os.ErrDeadlineExceeded) && n == 0:
		return err // the connection is as good as it was
	}
	s.conn.Close()
	s.conn = nil
	if again && !errors.Is(err, os.ErrDeadlineExceeded) {
		return s.try(line)
	}
	return err
}

// dial connects. It never waits: a full backlog is an error.
func (s *Syslog) dial() error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.path, Net: "unixgram"})
	s.stream = errors.Is(err, syscall.EPROTOTYPE)
	if s.stream {
		conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: s.path, Net: "unix"})
	}
	if err != nil {
		return err
	}
	s.conn = conn
	return nil
}

func (w *Writer) toSyslog(l level, line []byte) {
	if w.syslog == nil {
		return
	}
	w.head = w.o.Syslog.appendHeader(w.head[:0], w.priority(l), time.Now())
	w.syslog.add(0, w.head, line)
}

// priority is what syslog is told of a level. 1.x knew one.
func (w *Writer) priority(l level) int {
	if w.o.Format != config.Log2x {
		return daemonNotice
	}
	return [...]int{levelError: daemonErr, levelNotice: daemonNotice, levelInfo: daemonInfo, levelDebug: daemonDebug}[l]
}

// gap is the line about lines that syslog did not get. The goroutine that
// delivers calls it, and holds nothing.
func (w *Writer) gap(lost uint64) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	sentence := fmt.Sprintf("adminalert: %d lines are missing here: the system log did not take them", lost)
	head := w.o.Syslog.appendHeader(nil, w.priority(levelError), time.Now())
	if w.o.Format == config.LogJSON {
		return append(appendNotice(head, "", sentence), '\n')
	}
	return append(append(head, sentence...), '\n')
}
