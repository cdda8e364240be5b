package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"portsentry/internal/view"
)

// Want is what a configuration promises about one thing.
type Want string

// Wants.
const (
	NotAsked Want = ""    // nothing is promised
	Must     Want = "yes" // it is to happen
	MustNot  Want = "no"  // it is not to happen
)

// Promise is what a configuration promises about one trial.
type Promise struct {
	Seen     Want   `json:"seen,omitempty"`
	Named    string `json:"kind,omitempty"`     // as JSON events have it; "": nothing
	Evidence string `json:"evidence,omitempty"` // E0 to E3; "": nothing
	Banned   Want   `json:"banned,omitempty"`
	Released Want   `json:"released,omitempty"`
}

// Trial is one kind of probe of the self-test, from one address, and what became
// of it. Its JSON is one line of `portsentry selftest --json`.
type Trial struct {
	Event    string     `json:"event"` // "trial"
	Probe    string     `json:"probe"`
	Source   netip.Addr `json:"source,omitzero"`
	Seen     bool       `json:"seen"`
	Kind     string     `json:"kind,omitempty"` // as JSON events have it
	Named    string     `json:"type,omitempty"` // in the words of the scan line
	Evidence string     `json:"evidence,omitempty"`
	Banned   bool       `json:"banned"`            // what a ban is to silence was silent
	Silent   string     `json:"silent,omitempty"`  // that: "served ports" or "closed ports"
	Methods  []string   `json:"methods,omitempty"` // that enforce the ban
	Released bool       `json:"released"`          // it answered again after unban
	Promise  Promise    `json:"promised"`
	Broken   string     `json:"broken,omitempty"` // what is not as promised, in a sentence; "": nothing
	Hint     string     `json:"hint,omitempty"`   // what to do about that
}

// Asked reports whether anything at all is promised about the trial.
func (t *Trial) Asked() bool { return t.Promise != Promise{} }

// Selftest is a whole self-test.
type Selftest struct {
	Config string // whose promises were tested
	Stage  string // how that configuration watches and answers in the test, in words
	Notes  []string
	Trials []Trial
	Took   time.Duration
}

// Kept is how many of the trials that promise anything went as promised.
func (s *Selftest) Kept() (kept, asked int) {
	for i := range s.Trials {
		if t := &s.Trials[i]; t.Asked() {
			asked++
			if t.Broken == "" {
				kept++
			}
		}
	}
	return kept, asked
}

// summary is the last of the JSON lines.
type summary struct {
	Event  string  `json:"event"` // "selftest"
	Config string  `json:"config"`
	Kept   int     `json:"kept"`
	Asked  int     `json:"promised"`
	Took   float64 `json:"took_s"`
}

// WriteSelftest writes s for a person, or as JSON lines.
func WriteSelftest(out io.Writer, s *Selftest, asJSON bool) error {
	if !asJSON {
		return buffered(out, func(w *bufio.Writer) { writeSelftest(w, s, width(out), colours(out)) })
	}
	return buffered(out, func(w *bufio.Writer) {
		one := json.NewEncoder(w)
		for i := range s.Trials {
			_ = one.Encode(&s.Trials[i])
		}
		kept, asked := s.Kept()
		_ = one.Encode(summary{"selftest", s.Config, kept, asked, float64(s.Took.Milliseconds()) / 1000})
	})
}

// colours reports whether out is a terminal whose owner likes colours
// (no-color.org).
func colours(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// red marks what is not as promised.
const red, plain = "\x1b[1;31m", "\x1b[0m"

// cell is one cell of the table. What is broken is in capitals: colour is never
// the only sign.
type cell struct {
	text   string
	broken bool
}

const cellsOfTrial = 6

func (t *Trial) cells(name string) [cellsOfTrial]cell {
	p := &t.Promise
	row := [cellsOfTrial]cell{{text: name}, yesNo(t.Seen, p.Seen), {text: t.Named}, {text: t.Evidence}, {text: "-"}, {text: "-"}}
	if t.Seen && p.Named != "" && t.Kind != p.Named {
		row[2] = cell{"NOT " + p.Named + ": " + t.Kind, true}
	}
	if t.Seen && p.Evidence != "" && t.Evidence != p.Evidence {
		row[3] = cell{"NOT " + p.Evidence + ": " + t.Evidence, true}
	}
	switch {
	case p.Banned == Must && t.Banned && t.Silent == "closed ports":
		row[4].text = t.Silent
	case p.Banned == Must && t.Banned:
		row[4].text = strings.Join(t.Methods, ", ")
	case p.Banned == MustNot && t.Banned:
		row[4] = cell{"CUT OFF", true}
	case p.Banned != NotAsked:
		row[4] = yesNo(t.Banned, p.Banned)
	}
	if p.Released != NotAsked && t.Banned {
		row[5] = yesNo(t.Released, p.Released)
	}
	if !t.Asked() && t.Named == "" {
		row[2].text = "not asked for"
	}
	for i := range row {
		row[i].text = view.Printable(row[i].text)
		if row[i].text == "" {
			row[i].text = "-"
		}
	}
	return row
}

func yesNo(is bool, want Want) cell {
	text := map[bool]string{true: "yes", false: "no"}[is]
	switch {
	case want == NotAsked && !is:
		return cell{text: "-"}
	case want == Must && !is, want == MustNot && is:
		return cell{strings.ToUpper(text), true}
	}
	return cell{text: text}
}

// rows are the lines of the table: one for a probe that went alike in IPv4 and
// IPv6, else one for each.
func (s *Selftest) rows() (rows [][cellsOfTrial]cell) {
	family := func(t *Trial) string {
		if t.Source.Is6() {
			return " v6"
		}
		return " v4"
	}
	for i := 0; i < len(s.Trials); i++ {
		t := &s.Trials[i]
		row := t.cells(t.Probe)
		if i+1 < len(s.Trials) && s.Trials[i+1].Probe == t.Probe {
			next := &s.Trials[i+1]
			if i++; next.cells(t.Probe) != row {
				rows = append(rows, t.cells(t.Probe+family(t)))
				row = next.cells(t.Probe + family(next))
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func writeSelftest(w *bufio.Writer, s *Selftest, width int, colour bool) {
	wrapped(w, "", 0, view.Printable(s.Config+": "+s.Stage), width)
	for _, n := range s.Notes {
		wrapped(w, "", 0, view.Printable(n), width)
	}
	_ = w.WriteByte('\n')
	writeTrials(w, s.rows(), width, colour)
	_ = w.WriteByte('\n')
	for _, line := range s.complaints() {
		wrapped(w, "", 0, view.Printable(line), width)
	}
	if slices.ContainsFunc(s.Trials, func(t Trial) bool { return t.Promise.Banned == Must }) {
		wrapped(w, "", 0, "banned: a served port fell silent for that address (closed ports: the others did, and the served one went on); released: it answered again after unban", width)
	}
	kept, asked := s.Kept()
	wrapped(w, "", 0, fmt.Sprintf("%d of %d as promised, %.1f s; this machine's own firewall and configuration were not touched", kept, asked, s.Took.Seconds()), width)
}

// complaints say what is not as promised, once for all probes that it is true of.
func (s *Selftest) complaints() (lines []string) {
	var sentences []string
	probes := make(map[string][]string)
	for i := range s.Trials {
		t := &s.Trials[i]
		if t.Broken == "" {
			continue
		}
		sentence := t.Broken
		if t.Hint != "" {
			sentence += "; " + t.Hint
		}
		if probes[sentence] == nil {
			sentences = append(sentences, sentence)
		}
		if !slices.Contains(probes[sentence], t.Probe) {
			probes[sentence] = append(probes[sentence], t.Probe)
		}
	}
	for _, sentence := range sentences {
		lines = append(lines, strings.Join(probes[sentence], ", ")+": "+sentence)
	}
	return lines
}

func writeTrials(w *bufio.Writer, rows [][cellsOfTrial]cell, width int, colour bool) {
	columns := []column{{title: "probe"}, {title: "seen"}, {title: "named"}, {title: "evidence", give: 2}, {title: "banned"}, {title: "released", give: 1}}
	for i := range columns {
		c := &columns[i]
		c.width = len(c.title)
		for _, row := range rows {
			c.cells = append(c.cells, row[i].text)
			c.width = max(c.width, utf8.RuneCountInString(row[i].text))
		}
	}
	broken := make(map[string][]bool, len(columns)) // by title: columns may be left out
	for i := range columns {
		for _, row := range rows {
			broken[columns[i].title] = append(broken[columns[i].title], row[i].broken)
		}
	}
	columns = fit(columns, width)
	for n := -1; n < len(rows); n++ {
		line := ""
		for _, c := range columns {
			text, bad := c.title, false
			if n >= 0 {
				text, bad = c.cells[n], broken[c.title][n]
			}
			rest := strings.Repeat(" ", max(0, c.width-utf8.RuneCountInString(text))+2)
			if bad && colour {
				text = red + text + plain
			}
			line += text + rest
		}
		_, _ = w.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}
