package cli

import (
	"bufio"
	"slices"
	"strings"
	"unicode/utf8"
)

// column is one column of a table. Addresses never give way to the width of
// the terminal, the columns with the highest give first.
type column struct {
	title   string
	give    int  // 0: stays
	narrows bool // the last: it is cut before a column is left out
	right   bool // numbers
	paint   func(cell string) string
	cells   []string
	place   int // of its cell in a row that has all of them, where there are no cells here
	width   int
}

const minWords = 12 // columns below which a sentence is of no use

// add appends one row.
func add(columns []column, cells ...string) {
	for i, text := range cells {
		columns[i].cells = append(columns[i].cells, text)
	}
}

// writeTable writes the titles, if there are any, and the rows below them, in at most
// width columns.
// Width 0 is any.
func writeTable(w *bufio.Writer, columns []column, width int) {
	rows := 0
	for i := range columns {
		c := &columns[i]
		rows = len(c.cells)
		c.fitTo(c.title)
		for _, text := range c.cells {
			c.fitTo(text)
		}
	}
	columns = fit(columns, width)
	writeTitles(w, columns)
	cells := make([]string, len(columns))
	for row := range rows {
		for i := range columns {
			cells[i] = columns[i].cells[row]
		}
		writeRow(w, columns, cells)
	}
}

// fitTo makes c wide enough for text.
func (c *column) fitTo(text string) { c.width = max(c.width, utf8.RuneCountInString(text)) }

func writeTitles(w *bufio.Writer, columns []column) {
	titled := func(c column) bool { return c.title != "" }
	if slices.ContainsFunc(columns, titled) {
		writeRow(w, columns, nil)
	}
}

// writeRow writes the cells of one row; nil: the titles.
func writeRow(w *bufio.Writer, columns []column, cells []string) {
	spaces := 0 // before what comes next; none at the end of a line
	for i := range columns {
		c := &columns[i]
		text := c.title
		if cells != nil {
			text = cells[i]
		}
		text = strings.TrimRight(shorten(text, c.width), " ")
		pad := max(0, c.width-utf8.RuneCountInString(text))
		if i > 0 {
			spaces += 2
		}
		if c.right {
			spaces, pad = spaces+pad, 0
		}
		if text != "" {
			if c.paint != nil && cells != nil {
				text = c.paint(text)
			}
			for ; spaces > 0; spaces-- {
				_ = w.WriteByte(' ')
			}
			_, _ = w.WriteString(text)
		}
		spaces += pad
	}
	_ = w.WriteByte('\n')
}

// fit narrows the last column, if that may be, and then leaves columns out until
// the table has at most width columns.
func fit(columns []column, width int) []column {
	for width > 0 {
		total, first := -2, 0
		for i, c := range columns {
			total += c.width + 2
			if c.give > columns[first].give {
				first = i
			}
		}
		if total <= width || columns[first].give == 0 {
			break
		}
		if last := &columns[len(columns)-1]; last.narrows && last.width-(total-width) >= minWords {
			last.width -= total - width
			break
		}
		columns = slices.Delete(columns, first, first+1)
	}
	return columns
}

func shorten(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-3]) + "..."
}
