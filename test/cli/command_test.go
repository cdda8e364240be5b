package cli

import (
	"bytes"
	"strings"
	"testing"

	"portsentry/internal/app"
)

// portsentry runs one command line as cmd/portsentry does.
func portsentry(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = app.Main(t.Context(), app.Build{Version: "3.0.0", Commit: "4f1c2ab"}, args, &out, &errs)
	return out.String(), errs.String(), code
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

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
