package contrib

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// rules reads one file of rules, which Go's expressions and grep -E read alike.
func rules(t *testing.T, dir string) (out []*regexp.Regexp) {
	t.Helper()
	for line := range strings.Lines(contribFile(t, "logcheck", dir, "portsentry")) {
		out = append(out, regexp.MustCompile(strings.TrimSuffix(line, "\n")))
	}
	return out
}

func matches(rules []*regexp.Regexp, line string) bool {
	for _, r := range rules {
		if r.MatchString(line) {
			return true
		}
	}
	return false
}

// TestLogcheckRules goes through the rules in logcheck's order.
func TestLogcheckRules(t *testing.T) {
	cracking, violations := rules(t, "cracking.d"), rules(t, "violations.d")
	excused, ignored := rules(t, "violations.ignore.d"), rules(t, "ignore.d.server")
	for _, iso := range []bool{false, true} {
		for _, s := range samples {
			line := strings.TrimRight(s.syslog(iso), " ") // as logcheck does
			got := ""
			switch {
			case matches(cracking, line):
				got = attack
			case matches(violations, line) && !matches(excused, line):
				got = violation
			case !matches(ignored, line) && !matches(violations, line):
				got = event
			}
			if got != s.logcheck {
				t.Errorf("%q, want %q, for\n%s", got, s.logcheck, line)
			}
			if matches(ignored, line) && matches(cracking, line) {
				t.Errorf("ignored and an attack:\n%s", line)
			}
		}
	}
	for _, s := range samples {
		if line := "Nov 20 23:56:08 srv sshd[1]: " + s.line; matches(cracking, line) || matches(violations, line) || matches(ignored, line) {
			t.Errorf("a line of another program is taken for ours: %s", line)
		}
	}
}

// TestLogcheck runs logcheck on all samples with our rules alone.
func TestLogcheck(t *testing.T) {
	program, err := exec.LookPath("logcheck")
	if err != nil {
		program = "/usr/sbin/logcheck"
	}
	if _, err := os.Stat(program); err != nil {
		missing(t, "logcheck (apt-get install logcheck)")
	}
	who, err := user.Lookup("logcheck")
	if err != nil {
		missing(t, "the user that logcheck's package makes")
	}
	if os.Geteuid() != 0 {
		missing(t, "root, to become the user logcheck")
	}
	uid, _ := strconv.ParseUint(who.Uid, 10, 32)
	gid, _ := strconv.ParseUint(who.Gid, 10, 32)

	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} { // 0700, and we are to be somebody else
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	state := filepath.Join(dir, "state")
	if err := os.CopyFS(filepath.Join(dir, "rules"), os.DirFS(filepath.Join("..", "..", "contrib", "logcheck"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(state, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(state, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	for _, s := range samples {
		log.WriteString(s.syslog(false) + "\n" + s.syslog(true) + "\n")
	}
	for name, text := range map[string]string{"log": log.String(), "conf": "INTRO=0\nSORTUNIQ=0\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("bash", program, "-o", "-t", "-s", "-H", "srv", "-c", filepath.Join(dir, "conf"),
		"-l", filepath.Join(dir, "log"), "-r", filepath.Join(dir, "rules"), "-S", state)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMP=" + state, "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("logcheck: %v\n%s", err, out)
	}

	got := make(map[string]string) // line, section
	section := ""
	for line := range strings.Lines(string(out)) {
		switch line = strings.TrimRight(line, "\n"); {
		case strings.Contains(line, "portsentry["):
			got[line] = section
		case strings.HasPrefix(line, attack), strings.HasPrefix(line, violation), strings.HasPrefix(line, event):
			section = strings.Join(strings.Fields(line)[:2], " ")
		}
	}
	for _, iso := range []bool{false, true} {
		for _, s := range samples {
			if line := strings.TrimRight(s.syslog(iso), " "); got[line] != s.logcheck {
				t.Errorf("%q, want %q, for\n%s", got[line], s.logcheck, line)
			}
		}
	}
	if t.Failed() {
		t.Logf("logcheck wrote\n%s", out)
	}
}
