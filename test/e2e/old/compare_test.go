package old_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// difference is a row of docs/improvements.md as it shows in the log: lines
// that only 1.2 writes, lines that only ours writes.
type difference struct{ theirs, ours string }

// differences by the id of their row. A test names those it expects, and fails
// when one of them does not show.
var differences = map[string]difference{
	"ack-scans":       {ours: ` TCP (ACK/Window|Maimon) scan from host: `},
	"bad-checksums":   {theirs: ` (TCP SYN/Normal|UDP) scan from host: `},
	"log-only-files":  {theirs: ` is already blocked\.? Ignoring$`, ours: ` Ignoring (TCP|UDP) response per configuration file setting\.$`},
	"failed-commands": {theirs: ` has been blocked via dropped route `, ours: `(KILL_ROUTE failed for|There was an error trying to block host|ERROR: Could not block host)`},
	"trigger-bound":   {theirs: `( scan from host: |^securityalert: (WARNING: Trigger value|Blocking host anyway)|^Adjust the value lower |^attackalert: (Ignoring|Host: .* Ignoring$))`},
	"blocked-text":    {theirs: ` Ignoring$`},
}

func TestDifferencesAreListed(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "improvements.md"))
	check(t, err)
	rows := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, " | "); len(cells) == 5 {
			rows[strings.TrimPrefix(cells[0], "| ")] = true
		}
	}
	for id := range differences {
		if !rows[id] {
			t.Errorf("docs/improvements.md has no row %s", id)
		}
	}
}

// compare says how two sets of lines differ but for the named differences.
func compare(theirs, ours []string, ids ...string) (mistakes []string) {
	shown := make(map[string]bool)
	only := func(whose string, these, others []string, pattern func(difference) string) {
		for _, line := range set(these) {
			if slices.Contains(others, line) {
				continue
			}
			known := false
			for _, id := range ids {
				if p := pattern(differences[id]); p != "" && regexp.MustCompile(p).MatchString(line) {
					shown[id], known = true, true
				}
			}
			if !known {
				mistakes = append(mistakes, fmt.Sprintf("only %s: %q", whose, line))
			}
		}
	}
	only("1.2", theirs, ours, func(d difference) string { return d.theirs })
	only("ours", ours, theirs, func(d difference) string { return d.ours })
	for _, id := range ids {
		if !shown[id] {
			mistakes = append(mistakes, fmt.Sprintf("no line shows the difference %s", id))
		}
	}
	return mistakes
}

// same compares the lines of the last step. Ours may write a line about one
// source after a line about a later packet of another, so it is given a moment.
func same(t *testing.T, theirs, ours *world, ids ...string) {
	t.Helper()
	want := theirs.lines()
	mistakes := compare(want, ours.lines(), ids...)
	for end := time.Now().Add(moment); len(mistakes) > 0 && time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		mistakes = compare(want, ours.lines(), ids...)
	}
	if len(mistakes) > 0 {
		t.Errorf("%s\n1.2 says\n\t%s\nours says\n\t%s", strings.Join(mistakes, "\n"),
			strings.Join(want, "\n\t"), strings.Join(ours.lines(), "\n\t"))
	}
}

// sameList compares what came of the last step in order and number.
func sameList(t *testing.T, what string, theirs, ours func() []string) {
	t.Helper()
	want := theirs()
	end := time.Now().Add(moment)
	for !slices.Equal(want, ours()) && time.Now().Before(end) {
		<-time.After(20 * time.Millisecond)
	}
	if len(want) == 0 {
		t.Errorf("%s: 1.2 has none", what)
	}
	if got := ours(); !slices.Equal(want, got) {
		t.Errorf("%s\n1.2\n\t%s\nours\n\t%s", what, strings.Join(want, "\n\t"), strings.Join(got, "\n\t"))
	}
}

func TestCompare(t *testing.T) {
	const syn, ack = "attackalert: TCP SYN/Normal scan from host: a", "attackalert: TCP ACK/Window scan from host: a"
	for _, tt := range []struct {
		theirs, ours []string
		ids          []string
		mistakes     int
	}{
		{[]string{syn, syn}, []string{syn}, nil, 0},
		{[]string{syn}, nil, nil, 1},
		{nil, []string{syn}, []string{"bad-checksums"}, 2},
		{[]string{syn}, nil, []string{"bad-checksums"}, 0},
		{nil, []string{ack}, []string{"ack-scans"}, 0},
		{[]string{ack}, nil, []string{"ack-scans"}, 2},
		{[]string{syn}, []string{syn}, []string{"ack-scans"}, 1},
	} {
		if m := compare(tt.theirs, tt.ours, tt.ids...); len(m) != tt.mistakes {
			t.Errorf("%q, %q, %q: %q", tt.theirs, tt.ours, tt.ids, m)
		}
	}
}

// both runs a step in both worlds.
func both(theirs, ours *world, step func(*world)) {
	step(theirs)
	step(ours)
}

// matching are the lines that match.
func matching(lines []string, pattern string) []string {
	re := regexp.MustCompile(pattern)
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !re.MatchString(l) })
}
