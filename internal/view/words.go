package view

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Printable makes text of the daemon's harmless on a terminal.
func Printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
		return s // nearly all of it
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// Span is a length of time in at most two units: "41 s", "12 days, 3 h".
func Span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 24*time.Hour:
		return two(int(d/time.Hour), " h", " ", int(d%time.Hour/time.Minute), " min")
	}
	days, hours := int(d/(24*time.Hour)), int(d%(24*time.Hour)/time.Hour)
	return two(days, Plural(days, " day"), ", ", hours, " h")
}

func two(a int, unitA, between string, b int, unitB string) string {
	if b == 0 {
		return strconv.Itoa(a) + unitA
	}
	return strconv.Itoa(a) + unitA + between + strconv.Itoa(b) + unitB
}

// Plural is word for n of them.
func Plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// Grouped is n with its thousands set apart: 61,204.
func Grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Who is a prefix as one would write it: a single address without its length.
func Who(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
