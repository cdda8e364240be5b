// Package docs types what the documents tell people to type: every line of every
// block marked sh of README.md, CONTRIBUTING.md and docs/, and the examples of
// the manual pages, on a machine of its own for each document, from its first
// line to its last. Blocks marked "sh scanner" are typed on another machine. What
// is shown in plain blocks must have been said by then, or be a configuration
// that portsentry check takes. make is run dry; of lines that run go the packages
// and tests are looked for, and of those that run foreign programs which are not
// installed it is said so. Nothing touches the host.
package docs

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portsentry/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// TestDocuments runs them. Whatever is neither run nor listed with a reason fails.
func TestDocuments(t *testing.T) {
	for _, d := range documents(t) {
		if len(d.blocks) == 0 {
			continue
		}
		t.Run(strings.ReplaceAll(d.name, "/", "."), func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			for _, b := range d.blocks {
				s.block(d.name, b)
			}
			s.interrupt()
		})
	}
}

// ctrlC in the text before a block ends what runs before it and what it starts.
var ctrlC = regexp.MustCompile(`(?i)\bend [a-z ]+ with\s+Ctrl-C`)

// block types one block.
func (s *stage) block(doc string, b block) {
	s.t.Helper()
	interrupted := ctrlC.MatchString(b.prose)
	if interrupted {
		s.interrupt()
	}
	switch b.info {
	case "sh", "sh scanner":
		for i, line := range b.lines {
			s.line(doc, fmt.Sprintf("%s:%d", doc, b.at+i), line, b.info == "sh scanner")
		}
	case "":
		s.reads(doc, b)
	default:
		s.t.Errorf("%s:%d: a block marked %q is neither typed nor read", doc, b.at, b.info)
	}
	if interrupted {
		s.interrupt()
	}
}

// line types one line.
func (s *stage) line(doc, where, line string, elsewhere bool) {
	s.t.Helper()
	command, _, _ := strings.Cut(line, " #")
	command = strings.TrimSpace(command)
	if command == "" || strings.HasPrefix(command, "#") {
		return
	}
	if g, ok := given[doc][command]; ok {
		g(s)
	}
	words := words(command)
	if reason, ok := notRun[command]; ok {
		s.t.Logf("%s: not run: %s: %s", where, command, reason)
		return
	}
	if program := foreign(words); program != "" {
		if os.Getenv("CI") == "true" {
			s.t.Errorf("%s: not run: %s: %s is not installed (scripts/deps)", where, command, program)
			return
		}
		s.t.Logf("%s: not run: %s: %s is not installed here", where, command, program)
		return
	}
	if goCommand(words) {
		s.checkGo(where, words)
		return
	}
	if startsDaemon(words) {
		s.interrupt()
		if !detaches(words) {
			s.foreground(command)
			return
		}
	}
	if slices.Contains(words, "systemctl") || slices.Contains(words, "service") {
		s.interrupt()
	}
	said, code := s.sh(command, elsewhere)
	s.shown.WriteString(said)
	if code != exits[command] {
		s.t.Errorf("%s: %s: exit code %d\n%s", where, command, code, said)
	}
	if then, ok := after[doc][command]; ok {
		then(s)
	}
}

var setting = regexp.MustCompile(`^[A-Z_]+ *= *"`)

// reads is for what is only to be read: settings, which are put into the
// configuration and have to fit there, or something that has been said, or will be.
func (s *stage) reads(doc string, b block) {
	s.t.Helper()
	where := fmt.Sprintf("%s:%d", doc, b.at)
	if reason, ok := notShown[where[:strings.LastIndexByte(where, ':')]]; ok {
		s.t.Logf("%s: not compared: %s", where, reason)
		return
	}
	if !slices.ContainsFunc(b.lines, func(l string) bool { return l != "" && !setting.MatchString(l) }) {
		s.m.Write("/etc/portsentry/portsentry.conf", s.complete(b.lines))
		if said, code := s.sh("portsentry check", false); code != 0 {
			s.t.Errorf("%s: exit code %d\n%s", where, code, said)
		}
		return
	}
	missing := ""
	said := func() bool {
		have := make(map[string]bool)
		for line := range strings.Lines(s.all()) {
			have[normal(line)] = true
		}
		missing = ""
		for _, line := range b.lines {
			if !have[normal(line)] {
				missing += "\n" + line
			}
		}
		return missing == ""
	}
	defer func() {
		if missing != "" {
			s.t.Errorf("%s: nobody has said%s\nbut\n%s", where, missing, tail(s.all()))
		}
	}()
	lab.Wait(s.t, soon, where, said)
}

// tail is the end of what has been said, where the rest says little.
func tail(said string) string { return said[max(0, len(said)-4000):] }

// complete makes a file of the shipped one and these lines in the place of its own.
func (s *stage) complete(lines []string) string {
	key := func(line string) string {
		k, _, _ := strings.Cut(line, "=")
		return strings.TrimSpace(k)
	}
	var b strings.Builder
	for line := range strings.Lines(s.m.Read("/etc/portsentry/portsentry.conf")) {
		if !slices.ContainsFunc(lines, func(l string) bool { return key(l) == key(line) }) {
			b.WriteString(line)
		}
	}
	return b.String() + strings.Join(lines, "\n") + "\n"
}

var (
	hash    = regexp.MustCompile(`\(([0-9a-f]{7,}|unknown)\)`)
	numbers = regexp.MustCompile(`[0-9][0-9.,]*`)
	blanks  = regexp.MustCompile(` +`)
)

// normal is a line without what is another time otherwise.
func normal(line string) string {
	line = hash.ReplaceAllString(strings.TrimSpace(line), "(commit)")
	return blanks.ReplaceAllString(numbers.ReplaceAllString(line, "0"), " ")
}
