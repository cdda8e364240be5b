package config

import (
	"bytes"
	"iter"
	"strings"
)

// Bounds of a file. 1.x and 2.x read 1,023 bytes of a line and lost the rest.
const (
	maxFile = 1 << 20
	maxLine = 64 << 10
)

const blanks = " \t"

// lines yields the lines of data with their numbers from 1, without line ends
// (LF or CRLF) and without a leading byte order mark. The last needs no end.
func lines(data []byte) iter.Seq2[int, string] {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	return func(yield func(int, string) bool) {
		for n := 1; len(data) > 0; n++ {
			line, rest, _ := bytes.Cut(data, []byte("\n"))
			if !yield(n, string(bytes.TrimSuffix(line, []byte("\r")))) {
				return
			}
			data = rest
		}
	}
}

// legible reports whether a line of any file of ours can be read at all.
func legible(n int, line string, rep *report) bool {
	switch {
	case len(line) > maxLine:
		rep.add(n, "", "%d bytes are too long for a line (%d at most)", len(line), maxLine)
	case strings.IndexByte(line, 0) >= 0:
		rep.add(n, "", "a NUL byte; is this a text file, and not saved as UTF-16?")
	default:
		return true
	}
	return false
}

// assignment is one line of the form KEY="value".
type assignment struct {
	line  int
	key   string // any word, known or not
	value string // between the quotes; bytes as they stand
	bad   bool   // the value could not be read, and this was reported
}

// lex takes a configuration apart: the union of what 1.x and 2.x read. What
// it cannot read it reports.
func lex(data []byte, rep *report) []assignment {
	var all []assignment
	for n, line := range lines(data) {
		if !legible(n, line, rep) {
			continue
		}
		line = strings.Trim(line, blanks)
		if line == "" || line[0] == '#' {
			continue
		}
		key, rest := cutKey(line)
		if key == "" {
			rep.add(n, "", `%s is no setting (KEY="value") and no comment (# first)`, quoted(line))
			continue
		}
		value, problem := cutValue(key, rest)
		if problem != "" {
			rep.add(n, key, "%s", problem)
		}
		all = append(all, assignment{n, key, value, problem != ""})
	}
	return all
}

// cutKey splits a line into its key and what comes after the "=". 1.x also
// took a blank in place of the "=" where a quote followed. Anything else has
// no key.
func cutKey(line string) (key, rest string) {
	const longest = 64
	end := 0
	for end < len(line) && (isWord(line[end]) || line[end] == '-') {
		end++
	}
	if end == 0 || end > longest {
		return "", ""
	}
	key, rest = line[:end], strings.TrimLeft(line[end:], blanks)
	if after, ok := strings.CutPrefix(rest, "="); ok {
		return key, strings.TrimLeft(after, blanks)
	}
	if strings.HasPrefix(rest, `"`) && end < len(line) && line[end] != '"' {
		return key, rest
	}
	return "", ""
}

// cutValue takes the value out of its quotes. There is no way to write a
// quote inside of one; what follows may be a comment only.
func cutValue(key, rest string) (value, problem string) {
	after, ok := strings.CutPrefix(rest, `"`)
	if !ok {
		return "", unquoted(key, rest)
	}
	value, after, ok = strings.Cut(after, `"`)
	if !ok {
		return "", "the closing quote is missing after " + quoted(value)
	}
	after = strings.TrimLeft(after, blanks)
	if after != "" && after[0] != '#' {
		return "", quoted(after) + ` follows the closing quote; a value ends at its first ", so use ' inside, or put # before a comment`
	}
	return value, ""
}

// unquoted says what is wrong with a value that does not start with a quote.
func unquoted(key, rest string) string {
	plain, _, _ := strings.Cut(rest, "#")
	plain = strings.Trim(plain, blanks)
	if plain == "" {
		return `no value; write ` + key + `="" to leave it unset`
	}
	bare := strings.TrimSpace(strings.Trim(plain, `"'“”„«»`))
	const short = 40
	if bare == "" || len(bare) > short || quoted(bare) != `"`+bare+`"` {
		return quoted(plain) + ` does not stand in quotes ("...")`
	}
	return quoted(plain) + ` does not stand in quotes; did you mean ` + key + `="` + bare + `"?`
}
