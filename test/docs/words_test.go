package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portsentry/test/lab"
)

// words splits a line at blanks outside of quotes.
func words(line string) (out []string) {
	var word strings.Builder
	quote, any := rune(0), false
	for _, r := range line + " " {
		switch {
		case quote == 0 && (r == '\'' || r == '"'):
			quote, any = r, true
		case r == quote && r != 0:
			quote = 0
		case r == ' ' && quote == 0:
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

// ours are the arguments of portsentry, if that is what the line runs.
func ours(words []string) ([]string, bool) {
	if len(words) > 0 && words[0] == "sudo" {
		words = words[1:]
	}
	if len(words) == 0 || strings.TrimPrefix(words[0], "./") != "portsentry" {
		return nil, false
	}
	return words[1:], true
}

var subcommands = []string{"check", "status", "bans", "ban", "pending", "confirm", "reload", "report", "why", "sources", "events", "top", "unban", "replay", "selftest", "completion", "help"}

// startsDaemon: a line that does not ask for anything starts the daemon.
func startsDaemon(words []string) bool {
	args, ok := ours(words)
	return ok && !slices.ContainsFunc(args, func(a string) bool {
		return slices.Contains(subcommands, a) || slices.Contains([]string{"-h", "--help", "-V", "--version"}, a)
	})
}

var oldFlag = regexp.MustCompile(`^-[sa]?(tcp|udp)$`)

func detaches(words []string) bool {
	return !slices.Contains(words, "--foreground") &&
		slices.ContainsFunc(words, func(w string) bool { return w == "-D" || w == "--daemon" || oldFlag.MatchString(w) })
}

// foreign gives a program of others that the line wants and this host lacks.
func foreign(words []string) string {
	for _, program := range []string{"fail2ban-client", "fail2ban-regex", "logcheck", "logwatch", "ipset", "service"} {
		if i := slices.Index(words, program); i >= 0 && !slices.Contains(words[:i], "cp") {
			if _, err := exec.LookPath(program); err != nil {
				return program
			}
		}
	}
	return ""
}

func goCommand(words []string) bool {
	return slices.Contains(words, "go") || slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "scripts/") })
}

// checkGo is for lines that run tests, which would run this one: the packages,
// tests and scripts that they name are there.
func (s *stage) checkGo(where string, words []string) {
	s.t.Helper()
	var code strings.Builder
	for _, w := range words {
		if !strings.HasPrefix(w, "./") && !strings.HasPrefix(w, "scripts/") {
			continue
		}
		path := filepath.Join(tree, filepath.FromSlash(strings.TrimSuffix(w, "...")))
		info, err := os.Stat(path)
		switch {
		case err != nil:
			s.t.Errorf("%s: %v", where, err)
		case !info.IsDir() && info.Mode()&0o111 == 0:
			s.t.Errorf("%s: %s cannot be run", where, w)
		case info.IsDir():
			files, err := filepath.Glob(filepath.Join(path, "*_test.go"))
			check(s.t, err)
			for _, f := range files {
				text, err := os.ReadFile(f)
				check(s.t, err)
				code.Write(text)
			}
			if len(files) == 0 && !strings.HasSuffix(w, "...") {
				s.t.Errorf("%s: %s has no tests", where, w)
			}
		}
	}
	for i, w := range words[:len(words)-1] {
		name := regexp.MustCompile(`^\^?(\w+)\$?$`).FindStringSubmatch(words[i+1])
		if (w == "-run" || w == "-fuzz" || w == "-bench") && name != nil && !strings.Contains(code.String(), "func "+name[1]) {
			s.t.Errorf("%s: there is no %s", where, name[1])
		}
	}
}

// TestInline: what is named in running text is a command line that portsentry takes.
func TestInline(t *testing.T) {
	n := 0
	binary := ""
	for _, d := range documents(t) {
		for _, line := range d.inline {
			if binary == "" {
				binary = lab.Binary(t)
			}
			args, ok := ours(words(line))
			if !ok {
				t.Errorf("%s: %s: is no command of ours", d.name, line)
				continue
			}
			n++
			if out, err := exec.Command(binary, append(args, "--help")...).CombinedOutput(); err != nil || !strings.Contains(string(out), "Usage:\n  portsentry") {
				t.Errorf("%s: %s: %v\n%s", d.name, line, err, out)
			}
		}
	}
	if n < 5 {
		t.Errorf("only %d commands found: the documents are read wrongly", n)
	}
}

func TestWords(t *testing.T) {
	got := words(`sudo env "PATH=$PATH" x  '{ a }' b`)
	if want := []string{"sudo", "env", "PATH=$PATH", "x", "{ a }", "b"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for line, want := range map[string]bool{
		"sudo portsentry -i eth0": true, "portsentry -tcp": true, "portsentry check": false, "portsentry -V": false, "nmap portsentry": false,
	} {
		if got := startsDaemon(words(line)); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}
