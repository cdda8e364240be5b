package tui

import (
	"strings"
	"unicode/utf8"
)

// Attributes of text. None of them is ever the only sign.
const (
	bold    = "\x1b[1m"
	faint   = "\x1b[2m"
	reverse = "\x1b[7m"
	red     = "\x1b[1;31m"
	green   = "\x1b[32m"
	yellow  = "\x1b[33m"
	plain   = "\x1b[0m"
)

// painted is text as it is to look, where the terminal may show it.
func (m *model) painted(as, text string) string {
	if !m.colour || as == "" || text == "" {
		return text
	}
	return as + text + plain
}

func length(s string) int { return utf8.RuneCountInString(s) }

// shorten cuts s to width columns and shows that it did.
func shorten(s string, width int) string {
	if length(s) <= width {
		return s
	}
	if width <= 3 {
		return string([]rune(s)[:max(0, width)])
	}
	return string([]rune(s)[:width-3]) + "..."
}

// padded is s in width columns at least.
func padded(s string, width int, right bool) string {
	pad := strings.Repeat(" ", max(0, width-length(s)))
	if right {
		return pad + s
	}
	return s + pad
}

// wrapped breaks s between words into at most most lines of at most width columns;
// what does not fit is cut off, and that is seen.
func wrapped(s string, width, most int) []string {
	var lines []string
	line := ""
	words := strings.Fields(s)
	for i, word := range words {
		switch {
		case line == "":
			line = word
		case length(line)+1+length(word) <= width:
			line += " " + word
		case len(lines)+1 == most:
			return append(lines, shorten(line+" "+strings.Join(words[i:], " "), width))
		default:
			lines = append(lines, shorten(line, width))
			line = word
		}
	}
	if line != "" {
		lines = append(lines, shorten(line, width))
	}
	return lines
}

// bars draws rates as columns, the highest of them full, in width columns at most:
// where there are more rates, a column is the highest of several.
func (m *model) bars(rates []float64, width int) (drawn string, highest float64) {
	levels := []rune(" .:-=+*#")
	if m.blocks {
		levels = []rune(" ▁▂▃▄▅▆▇█")
	}
	each := max(1, (minute+width-1)/max(1, width))
	var columns []float64
	for end := len(rates); end > 0 && len(columns) < width; end -= each {
		top := 0.0
		for _, r := range rates[max(0, end-each):end] {
			top = max(top, r)
		}
		columns = append(columns, top)
		highest = max(highest, top)
	}
	out := make([]rune, len(columns))
	for i, c := range columns {
		level := 0
		if c > 0 {
			level = 1 + int(c/highest*float64(len(levels)-2)+0.5)
		}
		out[len(columns)-1-i] = levels[min(level, len(levels)-1)]
	}
	return string(out), highest
}
