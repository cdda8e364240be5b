// Package log writes what happens where people and their log watchers read it:
// Records and Actions in, lines out, in the wording of PortSentry 1.x or 2.x or
// as JSON (docs/json.md), to the terminal, to syslog, or to both. Every line
// that the old versions had, byte for byte, is here.
package log

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

const (
	// maxLine is the longest line PortSentry ever wrote, without its newline;
	// longer ones end in dots.
	maxLine = 1023
	// closeTime is how long a stop waits for outputs that are slow.
	closeTime = 2 * time.Second
)

// level is how much a line matters, and with it where it goes.
type level uint8

const (
	levelError level = iota
	levelNotice
	levelInfo  // said when asked to be verbose
	levelDebug // said when asked for everything
)

// Options say where lines go and how they read.
type Options struct {
	Format         config.LogFormat
	Stdout, Stderr io.Writer // nil: not wanted
	Journal        *Journal  // takes what is for both of them; nil: they are no journal
	Syslog         *Syslog   // nil: not wanted
	Verbose, Debug bool      // lines of 2.x that it had for -v and -d

	Modes      config.Modes // 1.x worded some lines by its mode
	IgnoreFile string       // as 2.x names it
}

// Writer writes lines. Scan lines wait in a buffer until Flush, so that a flood
// costs one write for some hundred of them; everything else is written at once,
// by a goroutine for the terminal and one for syslog. A line for which the
// bounded buffer has no room, or that cannot be written, is counted and given
// up: neither a full disk nor a reader that stops reading stops anybody. Lines
// keep their order and come out whole. Methods may be called from any goroutine
// and never wait for an output; only Close does, for a while.
type Writer struct {
	// InterfaceName names an interface by its index for JSON lines; "" or a nil
	// function leaves the field out. To be set before the first line.
	InterfaceName func(index int32) string

	o Options

	mu      sync.Mutex
	line    []byte // room to build one line in
	head    []byte // room for what syslog, or the journal, wants before it
	subject        // what lines are about at the moment
	console *queue // nil: neither stdout nor stderr is wanted
	syslog  *queue // nil: not wanted
}

// New makes a Writer.
func New(o Options) *Writer {
	w := &Writer{o: o}
	if o.Stdout != nil || o.Stderr != nil {
		t := &terminal{{w: o.Stdout}, {w: o.Stderr}}
		w.console = &queue{deliver: t.deliver}
		if o.Journal != nil {
			o.Journal.instead = t
			w.console.deliver = o.Journal.deliver
		}
	}
	if o.Syslog != nil {
		w.syslog = &queue{deliver: o.Syslog.deliver, gap: w.gap}
	}
	return w
}

// Stats counts lines since the start, those to the terminal and those to syslog.
type Stats struct {
	Lines uint64
	Lost  uint64 // of Lines: could not be written, or there was no room for them
	Err   error  // why, the last time
}

// Stats is a snapshot of the counters. Lines that wait count as written.
func (w *Writer) Stats() Stats {
	var s Stats
	for _, q := range [...]*queue{w.console, w.syslog} {
		if q == nil {
			continue
		}
		one := q.stats()
		s.Lines += one.Lines
		s.Lost += one.Lost
		if s.Err == nil {
			s.Err = one.Err
		}
	}
	return s
}

// Scan writes one sighting and the actions it led to.
func (w *Writer) Scan(r *store.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.o.Journal != nil { // nobody else asks, and there may be 100,000 a second
		defer w.off(w.on(eventSighting, topicOf(r)))
	}
	switch w.o.Format {
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
	defer w.off(w.on(eventAction, topic{source: host}))
	for i := range actions {
		if w.o.Format == config.LogJSON {
			w.actionJSON(host, &actions[i])
		} else {
			w.actionText(host, &actions[i])
		}
	}
	w.flush()
}

// Notice writes one sentence about ourselves, such as that somebody was given
// his access back.
func (w *Writer) Notice(sentence string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notice("", sentence)
	w.flush()
}

// State writes one sentence about what we are from here on, which is a word for
// machines: starting, active, reloaded, stopping.
func (w *Writer) State(state, sentence string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notice(state, sentence)
	w.flush()
}

func (w *Writer) notice(state, sentence string) {
	if w.o.Format == config.LogJSON {
		w.emit(levelNotice, appendNotice(w.begin(), state, sentence))
	} else {
		w.say(levelNotice, w.begins(sentence), sentence)
	}
}

// Reword changes how lines read from here on.
func (w *Writer) Reword(format config.LogFormat, modes config.Modes, ignoreFile string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.o.Format, w.o.Modes, w.o.IgnoreFile = format, modes, ignoreFile
}

// Flush has what waits written, and does not wait for that. The caller does it
// whenever it has no more Records, so that no line waits while nothing happens.
func (w *Writer) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flush()
}

func (w *Writer) flush() {
	if w.console != nil {
		w.console.flush()
	}
	if w.syslog != nil {
		w.syslog.flush()
	}
}

// Close waits until every line is written, but not for ever: what an output did
// not take within two seconds is the error. A daemon that takes no lines is not
// waited for.
func (w *Writer) Close() error {
	w.Flush()
	if w.syslog != nil {
		w.o.Syslog.giveUp()
	}
	late, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	var left uint64
	for _, q := range [...]*queue{w.console, w.syslog} {
		if q != nil {
			left += q.wait(late)
		}
	}
	if left > 0 {
		return fmt.Errorf("%d log lines were not written: whoever reads them does not", left)
	}
	return nil
}

// begin gives the room to build one line in; end or emit takes it back.
func (w *Writer) begin() []byte { return w.line }

// end writes a line of text.
func (w *Writer) end(l level, b []byte) { w.emit(l, clean(b)) }

// say writes a line of text made of parts.
func (w *Writer) say(l level, parts ...string) {
	b := w.begin()
	for _, p := range parts {
		b = append(b, p...)
	}
	w.end(l, b)
}

// emit writes a line whose parts are bounded and escaped already. 1.x had one
// stream, and a reader of JSON wants one; 2.x had its errors on stderr.
func (w *Writer) emit(l level, line []byte) {
	to, out := toStdout, w.o.Stdout
	if l == levelError && w.o.Format == config.Log2x {
		to, out = toStderr, w.o.Stderr
	}
	if out != nil {
		var prefix []byte
		if l == levelDebug {
			prefix = []byte("debug: ")
		}
		w.toConsole(to, l, prefix, line)
	}
	w.toSyslog(l, line)
	w.line = line[:0]
}

func (w *Writer) toConsole(to int, l level, prefix, line []byte) {
	if w.o.Journal != nil {
		w.head = append(w.appendFields(w.head[:0], l), prefix...)
		prefix = w.head
	}
	w.console.add(to, prefix, line)
}

// clean makes text one line whatever is in it, and no longer than maxLine.
func clean(line []byte) []byte {
	if len(line) > maxLine {
		line = append(line[:maxLine-3], "..."...)
	}
	rest := line
	for len(rest) >= 8 {
		if controls(binary.LittleEndian.Uint64(rest)) {
			question(rest[:8])
		}
		rest = rest[8:]
	}
	question(rest)
	return line
}

// controls reports whether a byte of eight is a control character. Both tests are
// exact as to whether there is any (Hacker's Delight, 2nd ed., section 6-1).
func controls(w uint64) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	del := w ^ ones*0x7f
	return ((w-ones*' ')&^w|(del-ones)&^del)&tops != 0
}

func question(text []byte) {
	for i, c := range text {
		if c < ' ' || c == 0x7f {
			text[i] = '?'
		}
	}
}
