package machines_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// Prometheus' own parser reads what a scrape gives, and its linter has nothing to say
// against any name, type or unit. Every help is a sentence.
func TestNames(t *testing.T) {
	files, err := filepath.Glob("testdata/*.metrics")
	check(t, err)
	if len(files) != 2 {
		t.Fatalf("%d files", len(files))
	}
	name := regexp.MustCompile(`^(portsentry|process|go)(_[a-z][a-z0-9]*)+$`)
	for _, path := range files {
		masked, err := os.ReadFile(path)
		check(t, err)
		text := strings.ReplaceAll(string(masked), " N\n", " 1\n")
		samples(t, text) // none is there twice
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		check(t, err)
		for _, p := range problems {
			t.Errorf("%s: %s: %s", path, p.Metric, p.Text)
		}
		for line := range strings.Lines(text) {
			m := heading.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
			switch {
			case m == nil:
			case m[1] == "HELP" && (!strings.HasSuffix(m[3], ".") || strings.ToUpper(m[3][:1]) != m[3][:1]):
				t.Errorf("%s: %q is no sentence", m[2], m[3])
			case !name.MatchString(m[2]):
				t.Errorf("%s is no name of ours", m[2])
			}
		}
	}
}
