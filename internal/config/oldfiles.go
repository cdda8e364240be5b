package config

import (
	"iter"
	"strings"
)

// ParseModes reads the text of portsentry.modes, the file of Red Hat's packages:
// modes of 1.x as words, a # beginning a comment anywhere. A file without a word
// means tcp and udp, as it did. The error is a *Mistakes.
func ParseModes(name string, data []byte) (Modes, error) {
	rep := &report{file: name}
	var m Modes
	for n, line := range smallFile(data, rep) {
		line, _, _ = strings.Cut(line, "#")
		for word := range strings.FieldsSeq(line) {
			if problem := m.add(word); problem != "" {
				rep.add(n, "", "%s", problem)
			}
		}
	}
	if err := rep.err(); err != nil {
		return Modes{}, err
	}
	if m == (Modes{}) {
		m = Modes{Connect, Connect}
	}
	return m, nil
}

// ParseDefaults reads the text of /etc/default/portsentry, a piece of shell in
// which Debian's packages set TCP_MODE and UDP_MODE; PLD's, in
// /etc/sysconfig/portsentry, said PORTSENTRY_TCP=yes and the like. It reads
// assignments, no more; what else is set is let be. none reports that no mode is
// asked for, which kept the daemon from being started and is no mistake. The
// error is a *Mistakes.
func ParseDefaults(name string, data []byte) (m Modes, none bool, err error) {
	rep := &report{file: name}
	debian := []string{"TCP_MODE", "UDP_MODE"}
	last := make(map[string]assignment) // as in the shell, the last one holds
	for n, line := range smallFile(data, rep) {
		all, problem := cutShell(n, line)
		if problem != "" {
			rep.add(n, "", "%s", problem)
		}
		for _, a := range all {
			if s := Suggest(a.key, debian); s != "" && s != a.key {
				rep.add(n, a.key, "is not read; did you mean %s?", s)
			}
			last[a.key] = a
		}
	}
	for _, key := range debian {
		words := []string{"tcp", "stcp", "atcp"}
		if key == "UDP_MODE" {
			words = []string{"udp", "sudp", "audp"}
		}
		m.set(last[key], words, rep)
	}
	for _, word := range modeWords() {
		m.enable(last["PORTSENTRY_"+strings.ToUpper(word)], word, rep)
	}
	if err := rep.err(); err != nil {
		return Modes{}, false, err
	}
	return m, m == Modes{}, nil
}

// set takes in the word that a gives, one of words; blank is none.
func (m *Modes) set(a assignment, words []string, rep *report) {
	if !a.bad && strings.Trim(a.value, blanks) == "" {
		return
	}
	problem := notPlain
	if !a.bad {
		word, problems := readWord(a.value, words)
		if problems == nil {
			problems = []string{m.add(word)}
		}
		problem = problems[0]
	}
	if problem != "" {
		rep.add(a.line, a.key, "%s", problem)
	}
}

// enable takes in word when a says yes, in the spellings of PLD's scripts.
func (m *Modes) enable(a assignment, word string, rep *report) {
	problem := notPlain
	if !a.bad {
		switch strings.ToLower(strings.Trim(a.value, blanks)) {
		case "", "no", "false", "off", "0":
			return
		case "yes", "true", "on", "1":
			problem = m.add(word)
		default:
			problem = quoted(a.value) + ": must be yes or no"
		}
	}
	if problem != "" {
		rep.add(a.line, a.key, "%s", problem)
	}
}

const (
	notPlain        = "is not read: a plain value is needed here, without $, ` and \\"
	onlyAssignments = " is not read: only NAME=value is, and comments"
)

// smallFile yields the legible lines of a helper file, comments still in them.
func smallFile(data []byte, rep *report) iter.Seq2[int, string] {
	if len(data) > maxFile {
		rep.add(0, "", "more than %d bytes; this is not the file it should be", maxFile)
		data = nil
	}
	return func(yield func(int, string) bool) {
		for n, line := range lines(data) {
			if legible(n, line, rep) && !yield(n, line) {
				return
			}
		}
	}
}

// cutShell takes the assignments off a line of shell. One with a value that only
// a shell could work out is marked bad.
func cutShell(n int, line string) (all []assignment, problem string) {
	rest := line
	for {
		rest = strings.TrimLeft(rest, blanks+";")
		if rest == "" || rest[0] == '#' {
			return all, ""
		}
		after, export := strings.CutPrefix(rest, "export")
		if export = export && after != "" && strings.Contains(blanks, after[:1]); export {
			rest = strings.TrimLeft(after, blanks)
		}
		end := 0
		for end < len(rest) && isWord(rest[end]) {
			end++
		}
		key := rest[:end]
		switch after = strings.TrimLeft(rest[end:], blanks); {
		case key == "" || key[0] >= '0' && key[0] <= '9':
			return all, quoted(strings.Trim(line, blanks)) + onlyAssignments
		case strings.HasPrefix(rest[end:], "="):
		case strings.HasPrefix(after, "="):
			return all, quoted(strings.Trim(line, blanks)) + " is no assignment to a shell: no blanks round the ="
		case export:
			rest = after // the name alone, assigned elsewhere
			continue
		default:
			return all, quoted(strings.Trim(line, blanks)) + onlyAssignments
		}
		a := assignment{line: n, key: key}
		if rest, problem = a.cutShellValue(rest[end+1:]); problem != "" {
			return all, problem
		}
		all = append(all, a)
	}
}

// cutShellValue takes the value of a off s, in single, double, no or several
// quotes, and gives what follows.
func (a *assignment) cutShellValue(s string) (rest, problem string) {
	var b strings.Builder
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == quote:
			quote = 0
		case quote == '\'':
			b.WriteByte(c)
		case c == '\\':
			a.bad = true
			i++ // whatever it is, it ends nothing
		case c == '$' || c == '`':
			a.bad = true
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && strings.IndexByte(blanks+";", c) >= 0:
			a.value = b.String()
			return s[i:], ""
		case quote == 0 && strings.IndexByte("&|<>()", c) >= 0:
			return "", quoted(s) + onlyAssignments
		default:
			b.WriteByte(c)
		}
	}
	if quote != 0 {
		return "", a.key + ": the closing quote is missing after " + quoted(b.String())
	}
	a.value = b.String()
	return "", ""
}
