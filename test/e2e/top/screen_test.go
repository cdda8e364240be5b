package top_test

import (
	"regexp"
	"strconv"
	"strings"
)

// screen is what a terminal shows, as far as top's sequences go (ECMA-48), and which
// modes it was left in.
type screen struct {
	rows, columns int
	cells         [][]rune
	x, y          int
	top, bottom   int // of what scrolls
	last          rune
	modes         map[string]bool // "?1049": set
	kitty         int             // keyboard modes that are pushed
	unknown       []string
	rest          string // the beginning of a sequence
}

func newScreen(rows, columns int) *screen {
	s := &screen{rows: rows, columns: columns, bottom: rows - 1, modes: map[string]bool{"?25": true}}
	for range rows {
		s.cells = append(s.cells, s.blank())
	}
	return s
}

func (s *screen) blank() []rune { return []rune(strings.Repeat(" ", s.columns)) }

// String is what is to be read.
func (s *screen) String() string {
	var lines []string
	for _, row := range s.cells {
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	return strings.Join(lines, "\n")
}

var (
	control = regexp.MustCompile(`^\x1b\[([?<>=]*)([0-9;:]*)([ -/]*)([@-~])`)
	command = regexp.MustCompile(`^\x1b\][^\x07\x1b]*(\x07|\x1b\\)`)
	partial = regexp.MustCompile(`^\x1b(\[[ -?]*|\][^\x07\x1b]*\x1b?)?$`)
)

// write takes what the program wrote.
func (s *screen) write(b []byte) {
	in := s.rest + string(b)
	s.rest = ""
	for in != "" {
		if in[0] != '\x1b' {
			r := []rune(in[:min(len(in), 4)])[0]
			s.put(r)
			in = in[len(string(r)):]
			continue
		}
		if m := control.FindStringSubmatch(in); m != nil {
			s.control(m[1], m[2], m[3], m[4])
			in = in[len(m[0]):]
			continue
		}
		if m := command.FindString(in); m != "" {
			in = in[len(m):]
			continue
		}
		if partial.MatchString(in) {
			s.rest = in
			return
		}
		switch in[1] {
		case 'M':
			if s.y == s.top {
				s.scroll(s.top, -1)
			} else {
				s.y--
			}
		default:
			s.unknown = append(s.unknown, in[:2])
		}
		in = in[2:]
	}
}

func (s *screen) put(r rune) {
	switch {
	case r == '\r':
		s.x = 0
	case r == '\n':
		if s.y == s.bottom {
			s.scroll(s.top, 1)
		} else {
			s.y = min(s.rows-1, s.y+1)
		}
	case r == '\b':
		s.x = max(0, s.x-1)
	case r == '\t':
		s.x = min(s.columns-1, (s.x/8+1)*8)
	case r < ' ':
		s.unknown = append(s.unknown, string(r))
	default:
		if s.x >= s.columns {
			s.x = 0
			s.put('\n')
		}
		s.cells[s.y][s.x] = r
		s.x++
		s.last = r
	}
}

// scroll moves the lines from first to the bottom up by n, or down.
func (s *screen) scroll(first, n int) {
	for range max(n, -n) {
		if n > 0 {
			copy(s.cells[first:s.bottom], s.cells[first+1:s.bottom+1])
			s.cells[s.bottom] = s.blank()
		} else {
			copy(s.cells[first+1:s.bottom+1], s.cells[first:s.bottom])
			s.cells[first] = s.blank()
		}
	}
}

func (s *screen) control(private, parameters, intermediate, final string) {
	if intermediate != "" { // questions and cursor shapes
		return
	}
	if private != "" {
		switch {
		case private == "?" && (final == "h" || final == "l"):
			for p := range strings.SplitSeq(parameters, ";") {
				s.modes["?"+p] = final == "h"
			}
		case private == ">" && final == "u":
			s.kitty++
		case private == "<" && final == "u":
			s.kitty--
		case private == ">" && final == "m": // modifyOtherKeys: 4;2 sets, 4 resets
			s.modes[">4"] = strings.Contains(parameters, ";")
		}
		return
	}
	var p []int
	for text := range strings.SplitSeq(parameters, ";") {
		n, _ := strconv.Atoi(text)
		p = append(p, n)
	}
	n := max(1, p[0])
	switch row := s.cells[s.y]; final {
	case "A":
		s.y = max(0, s.y-n)
	case "B":
		s.y = min(s.rows-1, s.y+n)
	case "C":
		s.x = min(s.columns-1, s.x+n)
	case "D":
		s.x = max(0, s.x-n)
	case "G", "`":
		s.x = min(s.columns, n) - 1
	case "d":
		s.y = min(s.rows, n) - 1
	case "H", "f":
		s.y, s.x = min(s.rows, n)-1, 0
		if len(p) > 1 {
			s.x = min(s.columns, max(1, p[1])) - 1
		}
	case "K", "J":
		from, to := s.x, s.columns
		if p[0] > 0 {
			from = 0
		}
		if p[0] == 1 {
			to = s.x + 1
		}
		copy(row[min(from, len(row)):to], s.blank())
		for y := range s.cells {
			if final == "J" && (p[0] == 2 || p[0] == 0 && y > s.y || p[0] == 1 && y < s.y) {
				s.cells[y] = s.blank()
			}
		}
	case "X":
		copy(row[s.x:min(s.columns, s.x+n)], s.blank())
	case "P":
		s.cells[s.y] = append(append(row[:s.x:s.x], row[min(s.columns, s.x+n):]...), s.blank()[:min(n, s.columns-s.x)]...)
	case "@":
		s.cells[s.y] = append(append(row[:s.x:s.x], s.blank()[:min(n, s.columns-s.x)]...), row[s.x:]...)[:s.columns]
	case "b":
		for range n {
			s.put(s.last)
		}
	case "L":
		s.scroll(s.y, -n)
	case "M":
		s.scroll(s.y, n)
	case "S":
		s.scroll(s.top, n)
	case "T":
		s.scroll(s.top, -n)
	case "r":
		s.top, s.bottom, s.x, s.y = 0, s.rows-1, 0, 0
		if len(p) == 2 {
			s.top, s.bottom = n-1, p[1]-1
		}
	case "m": // how text looks
	default:
		s.unknown = append(s.unknown, parameters+final)
	}
}
