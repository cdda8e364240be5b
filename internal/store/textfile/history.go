// Package textfile keeps the two text files of old: the history, one line for
// each sighting in the form of PortSentry 2.x or for each newly blocked host in
// that of 1.x, and the list of blocked hosts, one line a host in the form of
// 1.x. Records and entries in, lines that people and fail2ban read out. Neither
// file is ever truncated.
package textfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/store"
)

const (
	bufferSize = 64 << 10 // bytes: with so many waiting it is time to write
	maxWaiting = 1 << 20  // bytes that may wait for the disk
)

// HistoryStats counts lines. All only grow.
type HistoryStats struct {
	Lines  uint64 // written
	Lost   uint64 // not written, or not whole: the disk was full, or took too long
	Errors uint64 // attempts to write or reopen that failed
}

// History appends to HISTORY_FILE. Any goroutine may append, and waits for no disk;
// Flush and Close, which do, belong to one.
type History struct {
	path string
	old  bool // in the form of 1.x

	// Of the goroutine that writes.
	file    *os.File
	dev     uint64
	ino     uint64
	spare   []byte // room
	midLine bool   // what is in the file does not end in a newline
	err     error  // of the last attempt
	looked  time.Time

	mu      sync.Mutex // guards what follows; held for moments
	buf     []byte
	pending uint64 // lines in buf
	second  int64  // the one that stamp is of
	stamp   []byte
	zone    []byte

	lines, lost, errors atomic.Uint64
}

// OpenHistory opens the file at path for appending and makes it, mode 0640, and
// the directories above it, mode 0755, where they are missing. A symbolic link
// at path is refused. With format 1.x there is a line for each host that has just
// been blocked (1.x called hosts blocked to which it had done nothing: not ours),
// with any other one for each sighting.
func OpenHistory(path string, format config.LogFormat) (*History, error) {
	h := &History{path: path, old: format == config.Log1x, second: -1 << 63}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("history file: %w", err)
	}
	if err := h.open(); err != nil {
		return nil, fmt.Errorf("history file: %w", err)
	}
	return h, nil
}

func (h *History) open() error {
	// O_RDWR to see how it ends; O_NONBLOCK so that a pipe cannot hold us up.
	f, err := os.OpenFile(h.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%w: a symbolic link is not followed; name the file itself", err)
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFCHR: // /dev/null is a way to say "none"
	default:
		f.Close()
		return &fs.PathError{Op: "open", Path: h.path, Err: errors.New("neither a regular file nor a device")}
	}
	midLine := false
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0 {
		var last [1]byte
		n, _ := f.ReadAt(last[:], st.Size-1)
		midLine = n == 1 && last[0] != '\n'
	}
	if h.file != nil {
		h.file.Close()
	}
	h.file, h.dev, h.ino, h.midLine = f, st.Dev, st.Ino, midLine
	return nil
}

// Append adds the line of rec to what the next Flush writes, and reports whether it
// is time for that. In the form of 1.x only a sighting that got its host blocked has
// one.
func (h *History) Append(rec *store.Record) (due bool) {
	if h.old {
		return rec.Flags().Blocked == decode.Yes && !rec.Outcome.Already && h.BlockedLate(rec)
	}
	return h.add(func(b []byte) []byte {
		return store.AppendScanLine(h.appendTime(b, rec.Verdict.Sighting.Time), rec)
	})
}

// BlockedLate adds the line of 1.x about the host of rec, which has been blocked
// since Append had rec: by a step that ended only then. The form of 2.x has no
// line for that.
func (h *History) BlockedLate(rec *store.Record) (due bool) {
	if !h.old {
		return false
	}
	return h.add(func(b []byte) []byte {
		s := &rec.Verdict.Sighting
		e := BlockedEntry{Since: time.Unix(0, s.Time), Name: rec.Name, Host: s.Src, Port: s.DstPort, Proto: s.Proto}
		return appendEntry(b, &e)
	})
}

// add adds a line, if there is room.
func (h *History) add(line func([]byte) []byte) (due bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.buf) >= maxWaiting {
		h.lost.Add(1)
		return true
	}
	h.buf = line(h.buf)
	if h.buf[len(h.buf)-1] != '\n' {
		h.buf = append(h.buf, '\n')
	}
	h.pending++
	return len(h.buf) >= bufferSize
}

// appendTime appends t, unix nanoseconds, as 2.x does: local time, milliseconds,
// offset. Everything but the milliseconds is kept for a second.
func (h *History) appendTime(b []byte, t int64) []byte {
	sec, ns := t/1e9, t%1e9
	if ns < 0 {
		sec, ns = sec-1, ns+1e9
	}
	if sec != h.second {
		local := time.Unix(sec, 0)
		h.second = sec
		h.stamp = local.AppendFormat(h.stamp[:0], "2006-01-02T15:04:05.")
		h.zone = local.AppendFormat(h.zone[:0], "-0700 ")
	}
	ms := ns / 1e6
	b = append(b, h.stamp...)
	b = append(b, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	return append(b, h.zone...)
}

// Flush writes what has been appended; call it at least once a second. It
// follows a rotated file. What cannot be written is dropped and counted: a full
// disk must not stop anything. With nothing to write the error is that of the last
// time.
func (h *History) Flush() error {
	h.mu.Lock()
	text, lines := h.buf, h.pending
	h.buf, h.pending, h.spare = h.spare[:0], 0, nil
	h.mu.Unlock()
	if len(text) > 0 {
		h.err = h.follow()
		lost, err := h.write(text, lines)
		h.lines.Add(lines - lost)
		h.lost.Add(lost)
		if err != nil {
			h.err = err
		}
		if h.err != nil {
			h.errors.Add(1)
			h.err = fmt.Errorf("history file: %w (lines are being lost; they are counted)", h.err)
		}
	}
	if cap(text) <= 2*bufferSize { // else a storm is over
		h.spare = text
	}
	return h.err
}

func (h *History) write(text []byte, lines uint64) (lost uint64, err error) {
	if h.midLine {
		// Half a line stands there since the disk was full, or we were killed.
		if _, err := h.file.Write([]byte{'\n'}); err != nil {
			return lines, err
		}
		h.midLine = false
	}
	n, err := h.file.Write(text)
	if n > 0 {
		h.midLine = text[n-1] != '\n'
	}
	return uint64(bytes.Count(text[n:], []byte{'\n'})), err
}

// follow opens the file anew when path means another file than ours, at most
// once a second. Until that works, the old one goes on being written.
func (h *History) follow() error {
	now := time.Now()
	if now.Sub(h.looked) < time.Second {
		return nil
	}
	h.looked = now
	var st unix.Stat_t
	if err := unix.Lstat(h.path, &st); err == nil && st.Dev == h.dev && st.Ino == h.ino {
		return nil
	}
	return h.open()
}

// Stats returns the counters. Any goroutine may ask.
func (h *History) Stats() HistoryStats {
	return HistoryStats{Lines: h.lines.Load(), Lost: h.lost.Load(), Errors: h.errors.Load()}
}

// Close flushes and closes.
func (h *History) Close() error {
	return errors.Join(h.Flush(), h.file.Close())
}
