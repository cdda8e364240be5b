package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Mistake is one thing that is wrong with a file, in words for its owner.
type Mistake struct {
	File string
	Line int    // from 1; 0: the file as a whole
	Key  string // "" where no key could be read, and in the ignore file
	Text string // what was read, what is wrong with it, what was probably meant
}

// String is the mistake as one line: file:line: KEY: text. A Text that goes
// on from the key as a sentence ("is set twice") gets no colon.
func (m Mistake) String() string {
	var b strings.Builder
	b.WriteString(m.File)
	if m.Line > 0 {
		b.WriteByte(':')
		b.WriteString(strconv.Itoa(m.Line))
	}
	b.WriteString(": ")
	if m.Key != "" {
		b.WriteString(m.Key)
		if !strings.HasPrefix(m.Text, "is ") {
			b.WriteByte(':')
		}
		b.WriteByte(' ')
	}
	b.WriteString(m.Text)
	return b.String()
}

// Mistakes is everything that is wrong with a file, by line. It is the error
// of Parse, Load, ParseIgnore and LoadIgnore: match it with errors.As.
type Mistakes []Mistake

// Error is one line for each mistake.
func (m *Mistakes) Error() string {
	lines := make([]string, len(*m))
	for i, one := range *m {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// maxMistakes bounds what is itemised of one file. What is above is counted.
const maxMistakes = 100

// report gathers the mistakes of one file.
type report struct {
	file string
	list Mistakes
	more int
}

func (r *report) full() bool { return len(r.list) == maxMistakes }

func (r *report) add(line int, key, format string, args ...any) {
	if r.full() {
		r.more++
		return
	}
	r.list = append(r.list, Mistake{r.file, line, key, fmt.Sprintf(format, args...)})
}

// err is nil when nothing was reported, else the *Mistakes by line.
func (r *report) err() error {
	if len(r.list) == 0 {
		return nil
	}
	list := r.list
	slices.SortStableFunc(list, func(a, b Mistake) int { return a.Line - b.Line })
	if r.more > 0 {
		list = append(list, Mistake{r.file, list[len(list)-1].Line, "", fmt.Sprintf("and %d more mistakes", r.more)})
	}
	return &list
}

// quoted is foreign text made fit for one line of a terminal: in quotes, odd
// bytes escaped, cut after 48 bytes.
func quoted(s string) string {
	const most = 48
	if len(s) <= most {
		return strconv.Quote(s)
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	q := strconv.Quote(s[:cut])
	return q[:len(q)-1] + `..."`
}

// brief is quoted, but without the quotes where s is a short plain word.
func brief(s string) string {
	if s == "" || len(s) > 24 {
		return quoted(s)
	}
	for i := range len(s) {
		if c := s[i]; !isWord(c) && c != '.' && c != ',' && c != '-' && c != '/' && c != ':' {
			return quoted(s)
		}
	}
	return s
}

// isWord reports whether c may stand in a key or in the name of a token.
func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}
