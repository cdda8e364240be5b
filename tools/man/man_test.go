package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"portsentry/internal/app"
	"portsentry/internal/config"
)

// TestPages: the pages beside the source are what the generator writes.
func TestPages(t *testing.T) {
	for name, build := range pages() {
		got, err := os.ReadFile(filepath.Join("..", "..", "packaging", "man", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, build().Bytes()) {
			t.Errorf("%s is not what it would be now: go run ./tools/man", name)
		}
	}
}

// help is what the program itself says for args.
func help(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := app.Main(context.Background(), app.Build{Version: version}, append(args, "--help"), &out, &errs); code != 0 {
		t.Fatalf("%q --help: exit code %d: %s", args, code, errs.String())
	}
	return out.String()
}

var helpFlag = regexp.MustCompile(`(?m)^ +(?:-(\w), |    )--([a-z-]+)`)

// TestOptions: the page has the options and commands that there are, and no other.
func TestOptions(t *testing.T) {
	text := help(t)
	var want, got []string
	for _, m := range helpFlag.FindAllStringSubmatch(text, -1) {
		want = append(want, "-"+m[1]+" --"+m[2])
	}
	for _, o := range options {
		got = append(got, "-"+o.short+" --"+o.long)
	}
	sameSet(t, "options", got, want)

	var commands, described []string
	_, list, _ := strings.Cut(text, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		if name := strings.Fields(line)[0]; name != "help" {
			commands = append(commands, name)
		}
	}
	for _, c := range subcommands {
		described = append(described, c.name)
		for _, flag := range regexp.MustCompile(`--[a-z]+`).FindAllString(c.args, -1) {
			if !strings.Contains(help(t, c.name), flag) {
				t.Errorf("%s has no %s", c.name, flag)
			}
		}
	}
	sameSet(t, "commands", described, commands)

	for _, m := range modes1x {
		for _, flag := range regexp.MustCompile(`-\w+`).FindAllString(m.flags, -1) {
			if !strings.Contains(text, flag) {
				t.Errorf("--help does not mention %s", flag)
			}
		}
	}
}

func sameSet(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%q on the page\n%q in the program", what, got, want)
	}
}

// TestKeys: every key has an entry of its own, with all that is known of it.
func TestKeys(t *testing.T) {
	text := portsentryConf5().String()
	for _, d := range config.Docs() {
		if !strings.Contains(text, "\n.TP\n\\fB"+d.Key+"\\fR\n") {
			t.Errorf("no entry for %s", d.Key)
		}
		if d.Group == "" || d.Values == "" || d.Since == "" || d.Brief == "" || d.Text == "" {
			t.Errorf("%s is not described: %+v", d.Key, d)
		}
	}
}

// TestInline: what is typed comes out as typed, and marks become fonts.
func TestInline(t *testing.T) {
	for in, want := range map[string]string{
		"`-c` <path>, it's":   `\fB\-c\fR \fIpath\fR, it\(aqs`,
		"a < b, 1 ` 2":        "a < b, 1 \\(ga 2",
		`back\slash ~ ^`:      `back\eslash \(ti \(ha`,
		"`ip -$FAMILY$` <>":   `\fBip \-$FAMILY$\fR <>`,
		"[`--json`] <ADDR> `": "[\\fB\\-\\-json\\fR] \\fIADDR\\fR \\(ga",
	} {
		if got := inline(in); got != want {
			t.Errorf("inline(%q) = %q, want %q", in, got, want)
		}
	}
	p := new(page)
	p.text("One. .two stands first.\n\n'three'")
	if want := "One.\n\\&.two stands first.\n.PP\n\\(aqthree\\(aq\n"; p.String() != want {
		t.Errorf("%q, want %q", p.String(), want)
	}
}

// TestLint asks those that set manual pages.
func TestLint(t *testing.T) {
	programs := [][]string{{"mandoc", "-T", "lint", "-W", "warning"}, {"groff", "-man", "-ww", "-z"}, {"man", "--warnings", "-E", "UTF-8", "-l"}}
	for _, args := range programs {
		if _, err := exec.LookPath(args[0]); err != nil {
			if os.Getenv("CI") == "true" && os.Getenv("PORTSENTRY_LONG") != "" {
				t.Errorf("needs %s", args[0])
			}
			t.Logf("%s is not installed: not asked", args[0])
			continue
		}
		for name := range pages() {
			cmd := exec.Command(args[0], append(args[1:], filepath.Join("..", "..", "packaging", "man", name))...)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			if args[0] == "mandoc" {
				cmd.Stdout = &errs
			}
			cmd.Env = append(os.Environ(), "MANPAGER=cat", "PAGER=cat", "MANWIDTH=80")
			if err := cmd.Run(); err != nil || errs.Len() > 0 {
				t.Errorf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, errs.String())
			}
		}
	}
}
