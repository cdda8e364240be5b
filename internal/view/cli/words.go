package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// width is how many columns out has, 0 when it is no terminal: then nothing is
// wrapped or left out. COLUMNS overrides both.
func width(out io.Writer) int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	f, ok := out.(*os.File)
	if !ok {
		return 0
	}
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(ws.Col)
}

// printable makes text of the daemon's harmless on a terminal.
func printable(s string) string {
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

// span is a length of time in at most two units: "41 s", "12 days, 3 h".
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 24*time.Hour:
		return two(int(d/time.Hour), " h", " ", int(d%time.Hour/time.Minute), " min")
	}
	days, hours := int(d/(24*time.Hour)), int(d%(24*time.Hour)/time.Hour)
	return two(days, plural(days, " day"), ", ", hours, " h")
}

func two(a int, unitA, between string, b int, unitB string) string {
	if b == 0 {
		return strconv.Itoa(a) + unitA
	}
	return strconv.Itoa(a) + unitA + between + strconv.Itoa(b) + unitB
}

// plural is word for n of them.
func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// grouped is n with its thousands set apart: 61,204.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// wrapped writes text after a label of indent columns, broken between words at
// width columns; what follows hangs below it. Width 0 does not break.
func wrapped(w *bufio.Writer, label string, indent int, text string, width int) {
	line := fmt.Sprintf("%-*s", indent, label)
	used := 0 // words on the line
	for word := range strings.SplitSeq(text, " ") {
		if used > 0 {
			if width > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
				_, _ = w.WriteString(strings.TrimRight(line, " ") + "\n")
				line, used = strings.Repeat(" ", indent), 0
			} else {
				line += " "
			}
		}
		line += word
		used++
	}
	_, _ = w.WriteString(strings.TrimRight(line, " ") + "\n")
}
