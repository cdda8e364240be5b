package tui

import "strings"

// column is one column of a pane. Addresses never give way to the width of the
// terminal, the columns with the highest give first.
type column struct {
	title string
	give  int // 0: stays
	least int // columns, so that a row more does not move the others
	right bool
	free  bool                     // the last: it is cut before a column is left out
	paint func(cell string) string // attributes; nil: none
	width int
}

// leastFree is below which a text is of no use.
const leastFree = 20

// fit gives the widths that columns have in rows. It leaves out those in which nothing
// is written, and those for which width has no room: keep are the indexes of the others.
func fit(columns []column, rows [][]string, width int) (keep []int) {
	for i := range columns {
		c := &columns[i]
		c.width = max(length(c.title), c.least)
		empty := true
		for _, cells := range rows {
			c.width = max(c.width, length(cells[i]))
			empty = empty && cells[i] == ""
		}
		if !empty || c.give == 0 {
			keep = append(keep, i)
		}
	}
	for {
		total, first := -2, 0
		for at, i := range keep {
			total += columns[i].width + 2
			if columns[i].give > columns[keep[first]].give {
				first = at
			}
		}
		if total <= width || columns[keep[first]].give == 0 {
			return keep
		}
		if last := &columns[keep[len(keep)-1]]; last.free && last.width-(total-width) >= leastFree {
			last.width -= total - width
			return keep
		}
		keep = append(keep[:first:first], keep[first+1:]...)
	}
}

// line writes cells below each other in the columns of keep.
func (m *model) line(columns []column, keep []int, cells []string, attributes bool) string {
	var out strings.Builder
	for at, i := range keep {
		c := &columns[i]
		text := padded(shorten(cells[i], c.width), c.width, c.right)
		if at > 0 {
			out.WriteString("  ")
		}
		if c.paint != nil && attributes {
			text = m.painted(c.paint(cells[i]), text)
		}
		out.WriteString(text)
	}
	return strings.TrimRight(out.String(), " ")
}
