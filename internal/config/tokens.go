package config

import (
	"slices"
	"strings"
)

// tokens are what the KILL_* templates may name, between dollar signs. 1.x
// and 2.x knew the first three.
func tokens() []string {
	return []string{"TARGET", "PORT", "MODE", "PROTO", "DIRECTION", "KIND", "COUNT", "EVIDENCE", "FAMILY"}
}

// checkTokens says what is wrong with the $TOKEN$s of a template; target is
// whether it must name the $TARGET$. The text between tokens is the shell's:
// $VARIABLE, $VARIABLE$ANOTHER and $$ are left to it.
func checkTokens(text string, target bool) (problems []string) {
	known := tokens()
	has, meant := false, false
	for rest := text; ; {
		at := strings.IndexByte(rest, '$')
		if at < 0 {
			break
		}
		rest = rest[at+1:]
		end := 0
		for end < len(rest) && isWord(rest[end]) {
			end++
		}
		name := rest[:end]
		if end == len(rest) || rest[end] != '$' || name == "" {
			continue
		}
		after := rest[end+1:]
		if slices.Contains(known, name) {
			has = has || name == "TARGET"
			rest = after
			continue
		}
		if after != "" && (isWord(after[0]) || after[0] == '{' || after[0] == '(') {
			continue // the second dollar sign begins something of its own
		}
		p := "$" + brief(name) + "$ is no token of ours"
		if s := Suggest(name, known); s != "" {
			p += "; did you mean $" + s + "$?"
			meant = meant || s == "TARGET"
		}
		problems = append(problems, p)
		rest = after
	}
	if target && !has && !meant {
		p := "has no $TARGET$, so it would never name the scanner"
		if strings.Contains(text, "TARGET") {
			p += "; TARGET needs a $ on both sides"
		}
		problems = append(problems, p)
	}
	return problems
}
