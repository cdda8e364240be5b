package config

import (
	"slices"
	"strings"
)

// methodWords are the values of BLOCK_METHOD.
func methodWords() []string {
	return []string{string(MethodNone), string(MethodAuto), string(MethodXDP), string(MethodNftables), string(MethodRoute), string(MethodIPSet), string(MethodDryRun)}
}

// parseMethods reads ways to ban: commas between, blanks round them, empty
// entries passed over. None gives an empty list.
func parseMethods(v string) (methods []Method, problems []string) {
	problem := func(text string) { problems = append(problems, quoted(v)+": "+text) }
	seen := 0
	for entry := range strings.SplitSeq(v, ",") {
		if strings.Trim(entry, blanks) == "" {
			continue
		}
		seen++
		word, unknown := readWord(entry, methodWords())
		switch m := Method(word); {
		case unknown != nil:
			problems = append(problems, unknown...)
		case slices.Contains(methods, m):
			problem(word + " is there twice")
		default:
			methods = append(methods, m)
		}
	}
	switch has := func(m Method) bool { return slices.Contains(methods, m) }; {
	case seen == 0:
		problem("no method in it")
	case len(methods) < 2:
	case has(MethodNone):
		problem("none stands alone")
	case has(MethodAuto):
		problem(`auto chooses by itself and stands alone; leave it out to name several, such as "nftables,route"`)
	case has(MethodDryRun):
		problem("dryrun bans nobody and stands alone")
	}
	if problems != nil {
		return nil, problems
	}
	if methods[0] == MethodNone {
		return nil, nil
	}
	return methods, nil
}

func showMethods(methods []Method) string {
	if len(methods) == 0 {
		return string(MethodNone)
	}
	words := make([]string, len(methods))
	for i, m := range methods {
		words[i] = string(m)
	}
	return strings.Join(words, ",")
}
