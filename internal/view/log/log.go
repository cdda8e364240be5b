// Package log writes what happens where people and their log watchers read it:
// Records and Actions in, lines out, in the wording of PortSentry 1.x or 2.x or
// as JSON (docs/json.md).
package log

import (
	"bytes"
	"io"
	"net/netip"
	"sync"

	"portsentry/internal/config"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

const (
	bufferSize = 64 << 10
	// maxLine is the longest line PortSentry ever wrote, without its newline;
	// longer ones end in dots.
	maxLine = 1023
)

// Writer writes lines. Scan lines wait in a buffer until Flush, so that a flood
// costs one write for some hundred of them; everything else is written at once.
// A line that cannot be written is counted and given up: a full disk stops
// nobody. Methods may be called from any goroutine; they block while the output
// does.
type Writer struct {
	// InterfaceName names an interface by its index for JSON lines; "" or a nil
	// function leaves the field out. To be set before the first line.
	InterfaceName func(index int32) string

	format config.LogFormat

	mu          sync.Mutex
	out, errOut stream
}

// New makes a Writer. Only the 2.x format uses errOut, for errors; 1.x had one
// stream, and a reader of JSON wants one.
func New(out, errOut io.Writer, format config.LogFormat) *Writer {
	w := &Writer{format: format}
	w.out = stream{w: out, buf: make([]byte, 0, bufferSize)}
	w.errOut.w = errOut
	return w
}

// Stats counts lines since the start.
type Stats struct {
	Lines uint64
	Lost  uint64 // of Lines: could not be written
	Err   error  // why, the last time
}

// Stats is a snapshot of the counters. Lines still in the buffer count as
// written.
func (w *Writer) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Stats{Lines: w.out.lines + w.errOut.lines, Lost: w.out.lost + w.errOut.lost, Err: w.out.err}
	if s.Err == nil {
		s.Err = w.errOut.err
	}
	return s
}

// Scan writes one sighting and the actions it led to.
func (w *Writer) Scan(r *store.Record) {
	if r.Name != "" && !isHostName(r.Name) {
		// Whoever scans us may own the zone his name comes from.
		anonymous := *r
		anonymous.Name = ""
		r = &anonymous
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch w.format {
	case config.LogJSON:
		w.scanJSON(r)
	case config.Log1x:
		w.scan1x(r)
	default:
		w.scan2x(r)
	}
}

// Actions writes what was done about host apart from a sighting: steps that
// finished later, and bans that were undone.
func (w *Writer) Actions(host netip.Addr, actions []respond.Action) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range actions {
		if w.format == config.LogJSON {
			w.actionJSON(host, &actions[i])
		} else {
			w.actionText(host, &actions[i])
		}
	}
	w.flush()
}

// Notice writes one sentence about ourselves, such as that we are listening.
func (w *Writer) Notice(sentence string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.format == config.LogJSON {
		w.noticeJSON(sentence)
	} else {
		w.out.end(append(w.out.begin(), sentence...))
	}
	w.flush()
}

// Flush writes what waits. The caller does it whenever it has no more Records,
// so that no line waits while nothing happens.
func (w *Writer) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flush()
}

// flush writes errors first: 2.x said what went wrong before the scan line.
func (w *Writer) flush() {
	w.errOut.flush()
	w.out.flush()
}

// stream is one buffered output.
type stream struct {
	w     io.Writer
	buf   []byte
	torn  bool // the last line that got out has no end
	lines uint64
	lost  uint64
	err   error
}

// begin gives the buffer to append one line to; end takes it back.
func (s *stream) begin() []byte {
	if len(s.buf) > bufferSize-4*maxLine {
		s.flush()
	}
	return s.buf
}

// end ends a line of text: one line whatever is in it, and no longer than
// maxLine.
func (s *stream) end(b []byte) {
	line := b[len(s.buf):]
	if len(line) > maxLine {
		line = append(line[:maxLine-3], "..."...)
	}
	for i, c := range line {
		if c < ' ' || c == 0x7f {
			line[i] = '?'
		}
	}
	s.endUncut(b[:len(s.buf)+len(line)])
}

// endUncut ends a line whose parts are bounded and escaped already.
func (s *stream) endUncut(b []byte) {
	s.buf = append(b, '\n')
	s.lines++
}

func (s *stream) flush() {
	if len(s.buf) == 0 {
		return
	}
	n, err := 0, error(nil)
	if s.torn {
		_, err = io.WriteString(s.w, "\n")
		s.torn = err != nil
	}
	if err == nil {
		n, err = s.w.Write(s.buf)
	}
	if err != nil {
		s.err = err
		s.lost += uint64(bytes.Count(s.buf[n:], []byte{'\n'}))
		s.torn = s.torn || n > 0 && s.buf[n-1] != '\n'
	}
	s.buf = s.buf[:0]
}

// isHostName reports whether name holds nothing but what a host name or an
// address may (RFC 1123 section 2.1, and the underscore).
func isHostName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == ':':
		default:
			return false
		}
	}
	return len(name) <= 255
}
