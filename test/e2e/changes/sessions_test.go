package changes_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"portsentry/test/harness"
	"portsentry/test/lab"
)

// masks are what differs from run to run, and what sessions write for it.
var masks = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`pid \d+`), "pid PID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`"pid":\d+`), `"pid":PID`},
	{regexp.MustCompile(`in \d+ (s|min)( |$)`), "in N $1$2"},
	{regexp.MustCompile(`\b\d+ (s|min)( ago| left)`), "N $1$2"},
	{regexp.MustCompile(`\((xdp, )?nftables\)`), "(METHODS)"},
	{regexp.MustCompile(`"methods":\[[^]]*\]`), `"methods":[METHODS]`},
	{regexp.MustCompile(` {2,}`), "  "},
}

// TestSessions plays testdata/*.txtar, each with a daemon of its own. "says CODE FILE
// ARGUMENTS" runs portsentry and compares its exit code, and what it prints on both
// outputs with the file ("-": whatever it is).
func TestSessions(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	check(t, err)
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			l := lab.New(t)
			ignore := filepath.Join(t.TempDir(), "portsentry.ignore")
			check(t, os.WriteFile(ignore, []byte("198.51.100.0/24\n"), 0o600))
			dir := t.TempDir()
			harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: l.Host.NS, Dir: dir, Config: with(logOnly, "IGNORE_FILE", ignore)})
			testscript.Run(t, testscript.Params{
				Files: []string{script},
				Cmds:  map[string]func(*testscript.TestScript, bool, []string){"says": says},
				Setup: func(env *testscript.Env) error {
					env.Setenv("PROGRAM", lab.Binary(t))
					env.Setenv("DAEMON", dir)
					return nil
				},
			})
		})
	}
}

func says(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("says CODE FILE ARGUMENTS")
	}
	socket := filepath.Join(ts.Getenv("DAEMON"), harness.SocketName)
	command := append([]string{"-c", `"$@" 2>&1; echo "exit code $?"`, "sh", ts.Getenv("PROGRAM"), "--socket", socket}, args[2:]...)
	ts.Check(ts.Exec("sh", command...))
	got := strings.ReplaceAll(ts.ReadFile("stdout"), ts.Getenv("DAEMON"), "DIR")
	for _, m := range masks {
		lines := strings.Split(got, "\n")
		for i, line := range lines {
			lines[i] = m.from.ReplaceAllString(line, m.to)
		}
		got = strings.Join(lines, "\n")
	}
	code := "exit code " + args[0] + "\n"
	if args[1] == "-" {
		if !strings.HasSuffix(got, code) {
			ts.Fatalf("portsentry %s says\n%swant %s", strings.Join(args[2:], " "), got, code)
		}
		return
	}
	if want := ts.ReadFile(args[1]) + code; got != want {
		ts.Fatalf("portsentry %s says\n%swant\n%s", strings.Join(args[2:], " "), got, want)
	}
}
