package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
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
