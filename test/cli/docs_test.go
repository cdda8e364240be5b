package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"portsentry/packaging"
)

// shown is a command line that a document shows.
type shown struct {
	where string // file:line
	words []string
}

var (
	shBlock   = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	inlineRun = regexp.MustCompile("`((?:sudo )?portsentry [^`\n]+)`")
)

// documents are all that tell people what to type.
func documents(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md", "packaging/*.conf", "packaging/*.ignore"} {
		paths, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pattern)))
		check(t, err)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			check(t, err)
			out[filepath.ToSlash(strings.TrimPrefix(path, filepath.Join("..", "..")+string(filepath.Separator)))] = string(text)
		}
	}
	return out
}

// commands are the lines of the blocks of a document that are marked sh, and
// what stands between ` and begins with portsentry.
func commands(name, text string) (out []shown) {
	add := func(at int, line string) {
		line, _, _ = strings.Cut(line, " #")
		w := words(strings.TrimSpace(line))
		if len(w) > 0 && w[0] == "sudo" {
			w = w[1:]
		}
		if len(w) > 0 && !strings.HasPrefix(w[0], "#") {
			w[0] = strings.TrimPrefix(w[0], "./")
			out = append(out, shown{name + ":" + strconv.Itoa(1+strings.Count(text[:at], "\n")), w})
		}
	}
	for _, m := range shBlock.FindAllStringSubmatchIndex(text, -1) {
		at := m[2]
		for _, line := range strings.SplitAfter(text[m[2]:m[3]], "\n") {
			add(at, line)
			at += len(line)
		}
	}
	for _, m := range inlineRun.FindAllStringSubmatchIndex(text, -1) {
		add(m[2], text[m[2]:m[3]])
	}
	return out
}

// TestDocuments tries every command that the documents show: portsentry parses
// each, and runs those that need no daemon and no privilege; make has the
// target; what go is given is there. Blocks marked sh are for the reader to
// type; what is to be read only is not marked so.
func TestDocuments(t *testing.T) {
	t.Setenv("COLUMNS", "")
	dir := t.TempDir()
	conf := filepath.Join(dir, "portsentry.conf")
	check(t, os.WriteFile(conf, packaging.Config(), 0o600))
	makefile, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	check(t, err)
	n := 0
	for name, text := range documents(t) {
		for _, c := range commands(name, text) {
			switch args := c.words[1:]; c.words[0] {
			case "portsentry":
				n++
				tryPortsentry(t, c.where, args, conf, filepath.Join(dir, "nobody"))
			case "make":
				for _, target := range args {
					if !strings.Contains(target, "=") && !strings.Contains(string(makefile), "\n"+target+":") {
						t.Errorf("%s: make has no target %s", c.where, target)
					}
				}
			case "go":
				for _, arg := range args {
					path := strings.TrimSuffix(strings.TrimPrefix(arg, "./"), "...")
					if _, err := os.Stat(filepath.Join("..", "..", path)); strings.HasPrefix(arg, "./") && err != nil {
						t.Errorf("%s: %v", c.where, err)
					}
				}
			}
		}
	}
	if n < 5 {
		t.Errorf("only %d commands found: the documents are read wrongly", n)
	}
}

// tryPortsentry parses one command line, and runs it where that is safe: with
// the shipped configuration in the place of another, and with nobody at the
// control socket.
func tryPortsentry(t *testing.T, where string, args []string, conf, nobody string) {
	t.Helper()
	command := ""
	for i, arg := range args {
		switch {
		case i > 0 && (args[i-1] == "-c" || args[i-1] == "--configfile"):
			args[i] = conf
		case command == "" && !strings.HasPrefix(arg, "-"):
			command = arg
		}
	}
	out, errs, code := portsentry(t, append(args, "--help")...)
	want := "Usage:\n  portsentry"
	if command != "" {
		want += " " + command + " "
	}
	if code != 0 || !strings.Contains(out, want) {
		t.Errorf("%s: portsentry %s: exit code %d: %s", where, strings.Join(args, " "), code, errs)
		return
	}
	switch command {
	case "check":
		if len(args) == 1 {
			args = append(args, "-c", conf)
		}
		if _, errs, code := portsentry(t, args...); code != 0 {
			t.Errorf("%s: portsentry %s: exit code %d: %s", where, strings.Join(args, " "), code, errs)
		}
	case "status", "bans", "unban":
		for i, arg := range args {
			if arg == "ADDRESS" {
				args[i] = "203.0.113.9"
			}
		}
		if command == "unban" && len(args) == 1 {
			return // named, not shown
		}
		if _, errs, code := portsentry(t, append(args, "--socket", nobody)...); code != 2 || !strings.HasPrefix(errs, "portsentry is not running ") {
			t.Errorf("%s: portsentry %s: exit code %d: %s", where, strings.Join(args, " "), code, errs)
		}
	}
}

// TestCommands finds commands where there are any, and none elsewhere.
func TestCommands(t *testing.T) {
	const text = "Text with `portsentry status --json` and `portsentry.conf`.\n" +
		"```sh\nmake run     # builds\n\n# a word\nsudo ./portsentry -c 'a b'\n```\n" +
		"```\nportsentry nothing\n```\n    portsentry nothing\n"
	var got []string
	for _, c := range commands("x.md", text) {
		got = append(got, c.where+" "+strings.Join(c.words, "|"))
	}
	const want = "x.md:3 make|run\nx.md:6 portsentry|-c|a b\nx.md:1 portsentry|status|--json"
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}
