package log

import (
	"strings"

	"portsentry/internal/config"
)

// Error writes what does not work, a line for each line of text: on stderr
// whatever the format, in syslog, and as JSON on stdout.
func (w *Writer) Error(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.aside(levelError, text, true)
	w.flush()
}

// Info writes what PortSentry of old never said, such as what is watched: on
// stderr, where nobody takes it for a line of old, and in syslog when asked to be
// verbose.
func (w *Writer) Info(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.aside(levelInfo, text, w.o.Verbose)
	w.flush()
}

// aside writes each line of text to stderr, and with more where it is looked for.
func (w *Writer) aside(l level, text string, more bool) {
	for sentence := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		b := clean(append(append(w.begin(), w.begins(sentence)...), sentence...))
		asJSON := w.o.Format == config.LogJSON
		if w.o.Stderr != nil && (w.o.Journal == nil || !asJSON || l != levelError) { // the journal has it as JSON
			w.toConsole(toStderr, l, nil, b)
		}
		w.line = b[:0]
		switch {
		case !more:
		case !asJSON:
			w.toSyslog(l, b)
		case l == levelError:
			w.emit(l, appendNotice(b[:0], "", sentence))
		default:
			b = appendNotice(b[:0], "", sentence)
			w.toSyslog(l, b)
			w.line = b[:0]
		}
	}
}

// begins is what a sentence of ours lacks in the log of 1.x: there, every line
// began with a word to sort it by.
func (w *Writer) begins(sentence string) string {
	if w.o.Format != config.Log1x {
		return ""
	}
	for _, word := range [...]string{"adminalert: ", "attackalert: ", "securityalert: "} {
		if strings.HasPrefix(sentence, word) {
			return ""
		}
	}
	return "adminalert: "
}
