package log

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// JournalSocket is where systemd-journald takes entries with fields, by the
// protocol of systemd.io/JOURNAL_NATIVE_PROTOCOL.
const JournalSocket = "/run/systemd/journal/socket"

// Journal sends lines to systemd-journald, each with what it is about in fields of
// its own. A line that it does not take goes where it would have gone without it.
type Journal struct {
	path    string
	conn    *net.UnixConn // nil: not connected
	instead *terminal
	entry   []byte
	wait    time.Duration // how long a line may take: less and less while it takes none
}

// OpenJournal connects to the socket at path, JournalSocket by default.
func OpenJournal(path string) (*Journal, error) {
	j := &Journal{path: path}
	if j.path == "" {
		j.path = JournalSocket
	}
	if err := j.dial(); err != nil {
		return nil, fmt.Errorf("the journal: %w", err)
	}
	return j, nil
}

// IsJournal reports whether the service manager has connected w to the journal:
// it says so by the device and inode of the socket (systemd.exec(5),
// $JOURNAL_STREAM).
func IsJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	at, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", at.Dev, at.Ino)
}

func (j *Journal) dial() (err error) {
	j.conn, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: j.path, Net: "unixgram"})
	return err
}

// deliver sends lines; for queue.
func (j *Journal) deliver(to int, lines []byte) (lost uint64, err error) {
	j.wait = sendTime
	for line := range bytes.Lines(lines) {
		jerr := j.send(line)
		switch {
		case jerr == nil:
			j.wait = sendTime
			continue
		case errors.Is(jerr, os.ErrDeadlineExceeded), errors.Is(jerr, syscall.ENOBUFS):
			// It is there and does not keep up: the stream beside it would hold us up.
			lost, err = lost+1, jerr
			j.wait = max(j.wait/2, time.Millisecond)
			continue
		}
		_, text, _ := bytes.Cut(line, []byte("\x1fMESSAGE="))
		n, terr := j.instead.deliver(to, text)
		if terr != nil {
			lost, err = lost+n, errors.Join(jerr, terr)
		}
	}
	return lost, err
}

// send sends one line as an entry: fields as NAME=value, each with a newline
// behind it. No value of ours holds one, so the form with lengths is not needed.
// Where the first attempt finds that the journal has gone, another is made.
func (j *Journal) send(line []byte) error {
	j.entry = append(j.entry[:0], line...)
	for i, c := range j.entry {
		if c == between {
			j.entry[i] = '\n'
		}
	}
	var err error
	for range 2 {
		if j.conn == nil {
			if err := j.dial(); err != nil {
				return err
			}
		}
		j.conn.SetWriteDeadline(time.Now().Add(j.wait))
		_, err = j.conn.Write(j.entry)
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EMSGSIZE) {
			return err
		}
		j.conn.Close()
		j.conn = nil
	}
	return err
}
