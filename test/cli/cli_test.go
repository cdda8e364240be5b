// Package cli tries the command as people use it: terminal sessions in
// testdata/*.txtar, and the commands that the documents show. Nothing here
// needs a privilege, and no daemon is started.
package cli

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/app"
)

// portsentry runs one command line as cmd/portsentry does.
func portsentry(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = app.Main(t.Context(), app.Build{Version: "3.0.0", Commit: "4f1c2ab"}, args, &out, &errs)
	return out.String(), errs.String(), code
}

// TestSessions plays testdata/*.txtar. A session is lines of
//
//	[!] portsentry ARG...    runs it; with ! it must fail, else succeed
//	exits N portsentry ARG...    it must end with exit code N
//	[!] stdout REGEXP        of what the last command said; stderr likewise
//	cmp FILE FILE            they are the same; stdout and stderr are files, too
//	cp FILE FILE
//	[!] exists FILE
//
// and then files, each after a line "-- NAME --". Words are parted by blanks
// and quoted with '. This is what testscript of github.com/rogpeppe/go-internal
// reads, but for "exits", which would be a command of ours there.
func TestSessions(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal("no sessions", err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Setenv("COLUMNS", "")
			t.Chdir(t.TempDir())
			s := session{t: t}
			script, rest := cutFile(string(text))
			for rest != "" {
				var name, file string
				name, rest, _ = strings.Cut(rest, " --\n")
				file, rest = cutFile(rest)
				check(t, os.WriteFile(name, []byte(file), 0o600))
			}
			for i, line := range strings.Split(script, "\n") {
				if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
					continue
				}
				s.where = path + ":" + strconv.Itoa(i+1) + ": " + line
				s.run(words(line))
			}
		})
	}
}

// cutFile gives the text up to the next "-- NAME --" and what begins with NAME.
func cutFile(text string) (file, rest string) {
	if rest, ok := strings.CutPrefix(text, "-- "); ok {
		return "", rest
	}
	file, rest, ok := strings.Cut(text, "\n-- ")
	if ok {
		file += "\n"
	}
	return file, rest
}

// words splits a line at blanks outside of '.
func words(line string) (out []string) {
	var word strings.Builder
	quoted, any := false, false
	for _, r := range line + " " {
		switch {
		case r == '\'':
			quoted, any = !quoted, true
		case r == ' ' && !quoted:
			if any {
				out = append(out, word.String())
				word.Reset()
			}
			any = false
		default:
			word.WriteRune(r)
			any = true
		}
	}
	return out
}

// session is one terminal.
type session struct {
	t              *testing.T
	where          string
	stdout, stderr string
}

func (s *session) run(w []string) {
	s.t.Helper()
	not := w[0] == "!"
	if not {
		w = w[1:]
	}
	switch verb, args := w[0], w[1:]; verb {
	case "portsentry":
		if code := s.portsentry(args); (code != 0) != not {
			s.t.Errorf("%s: exit code %d\n%s", s.where, code, s.stderr)
		}
	case "exits":
		if code := s.portsentry(args[2:]); strconv.Itoa(code) != args[0] || args[1] != "portsentry" {
			s.t.Errorf("%s: exit code %d\n%s", s.where, code, s.stderr)
		}
	case "stdout", "stderr":
		if text := s.file(verb); regexp.MustCompile("(?m)"+args[0]).MatchString(text) == not {
			s.t.Errorf("%s: it said\n%s", s.where, text)
		}
	case "cmp":
		if d := cmp.Diff(s.file(args[1]), s.file(args[0])); d != "" {
			s.t.Errorf("%s (-%s +%s):\n%s", s.where, args[1], args[0], d)
		}
	case "cp":
		check(s.t, os.WriteFile(args[1], []byte(s.file(args[0])), 0o600))
	case "exists":
		if _, err := os.Stat(args[0]); errors.Is(err, fs.ErrNotExist) != not {
			s.t.Errorf("%s: %v", s.where, err)
		}
	default:
		s.t.Fatalf("%s: no such verb", s.where)
	}
}

func (s *session) portsentry(args []string) (code int) {
	s.t.Helper()
	s.stdout, s.stderr, code = portsentry(s.t, args...)
	return code
}

func (s *session) file(name string) string {
	switch name {
	case "stdout":
		return s.stdout
	case "stderr":
		return s.stderr
	}
	text, err := os.ReadFile(name)
	check(s.t, err)
	return string(text)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
