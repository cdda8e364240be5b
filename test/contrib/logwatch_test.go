package contrib

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// logwatch runs a script of logwatch's over the samples, without the headers
// that logwatch takes off.
func logwatch(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("perl"); err != nil {
		missing(t, "perl")
	}
	var in strings.Builder
	for _, s := range samples {
		in.WriteString(s.line + "\n")
	}
	in.WriteString("something new\n")
	cmd := exec.Command("perl", args...)
	cmd.Env = append(os.Environ(), "LOGWATCH_DETAIL_LEVEL=5")
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

// TestLogwatch runs our script: scans of both dialects, nobody who is spared,
// and nothing unmatched but what wants a look.
func TestLogwatch(t *testing.T) {
	out := logwatch(t, filepath.Join("..", "..", "contrib", "logwatch", "scripts", "services", "portsentry"))
	for _, want := range []string{
		"TCP SYN/Normal scan from\n   10.77.0.3: TCP/1\n   203.0.113.9: TCP/1\n",
		"TCP SYN/Normal scan, below SCAN_TRIGGER from\n   203.0.113.9: TCP/1\n",
		"UDP from\n   2001:db8::9: UDP/7\n",
		"Connect from\n   10.77.0.2: TCP/11\n   203.0.113.10: TCP/11\n",
		"Cut off via nftables:\n   10.77.0.6: 1 time(s)\n",
		"Let in again via nftables:\n   10.77.0.6: 1 time(s)\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	_, unmatched, _ := strings.Cut(out, "**Unmatched entries**\n")
	for line := range strings.Lines(unmatched) {
		if !strings.Contains(line, "ERROR") && !strings.Contains(line, "Error") && !strings.Contains(line, " failed for ") && !strings.Contains(line, "was not read again") && !strings.Contains(line, "something new") {
			t.Errorf("unmatched: %s", line)
		}
	}
	if t.Failed() {
		t.Logf("it wrote\n%s", out)
	}
}

// TestLogwatchStock: the script that logwatch brings understands our lines of
// 1.x, as docs/logwatch.md says.
func TestLogwatchStock(t *testing.T) {
	const stock = "/usr/share/logwatch/scripts/services/portsentry"
	if _, err := os.Stat(stock); err != nil {
		missing(t, "logwatch (apt-get install logwatch)")
	}
	out := logwatch(t, "-I/usr/share/logwatch/lib", stock)
	for _, want := range []string{"TCP SYN/Normal from:", "10.77.0.3", "UDP from:", "Blocked route from/to", "10.77.0.6"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
