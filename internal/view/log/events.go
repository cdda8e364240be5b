package log

import (
	"strings"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/respond"
)

// Beginnings and ends have no words in the log of old: as JSON alone they have a
// line, so that whoever reads it knows what stands without asking. It waits for
// Flush, as those of scans do: many bans may end at once.

// Began says that a ban began which no sighting led to: somebody asked for it.
func (w *Writer) Began(b *respond.Ban) {
	if b.By == "" {
		return
	}
	w.about(eventBan, func(line []byte) []byte {
		line = appendBan(line, b)
		if !b.Until.IsZero() {
			line = appendNumber(line, `,"length_s":`, uint64(max(0, b.Until.Sub(b.Since).Round(time.Second)/time.Second)))
		}
		line = appendString(append(line, `,"reason":`...), b.Reason)
		return appendString(append(line, `,"by":`...), b.By)
	}, b)
}

// Ended says that a ban has ended, and how.
func (w *Writer) Ended(b *respond.Ban, end respond.End) {
	w.about(eventEnd, func(line []byte) []byte {
		line = appendBan(line, b)
		line = append(line, `,"since":"`...)
		line = b.Since.UTC().AppendFormat(line, rfc3339)
		line = append(line, `","ending":"`...)
		line = append(append(line, end.Ending.String()...), '"')
		if end.By != "" {
			line = appendString(append(line, `,"by":`...), end.By)
		}
		return line
	}, b)
}

// about writes the line of an event as JSON.
func (w *Writer) about(e event, rest func(line []byte) []byte, b *respond.Ban) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.o.Format != config.LogJSON {
		return
	}
	defer w.off(w.on(e, banTopic(b)))
	w.emit(levelNotice, append(rest(beginEvent(w.begin(), e)), '}'))
}

func appendBan(line []byte, b *respond.Ban) []byte {
	line = append(line, `,"prefix":"`...)
	line = b.Prefix.AppendTo(line)
	line = append(line, `","scope":"`...)
	line = append(line, b.Scope.String()...)
	line = append(line, `","strength":"`...)
	line = append(line, b.Strength.String()...)
	line = append(line, `","evidence":"`...)
	return append(append(line, b.Evidence.String()...), '"')
}

// Changed says what a person has changed, such as "uid 1000 (pid 4711)"; "": the
// daemon has taken back what one has.
func (w *Writer) Changed(by, sentence string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.off(w.on(eventChange, topic{}))
	switch {
	case w.o.Format == config.LogJSON:
		b := appendString(append(beginEvent(w.begin(), eventChange), `,"text":`...), sentence)
		if by != "" {
			b = appendString(append(b, `,"by":`...), by)
		}
		w.emit(levelNotice, append(b, '}'))
	case by != "":
		w.notice("", "adminalert: "+sentence+", by "+by)
	default:
		w.notice("", "adminalert: "+sentence)
	}
	w.flush()
}

// Problem says that something does not work, under a key that stays the same, or
// with over that it does again. Who does not read JSON is told of beginnings
// alone, and not of what is quiet: said elsewhere.
func (w *Writer) Problem(key, sentences string, over, quiet bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.off(w.on(eventProblem, topic{}))
	if w.o.Format == config.LogJSON {
		b := appendString(append(beginEvent(w.begin(), eventProblem), `,"key":`...), key)
		b = appendBool(b, `,"over":`, over)
		b = appendString(append(b, `,"text":`...), strings.ReplaceAll(strings.TrimSuffix(sentences, "\n"), "\n", "; "))
		w.emit(levelError, append(b, '}'))
	}
	if !over && !quiet {
		w.aside(levelError, sentences, false)
	}
	w.flush()
}
