package old_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"portsentry/test/harness"
	"portsentry/test/lab"
)

// There is no package of 2.0.7 to run; these are lines that it wrote, for
// probes of port 11 or 7 by the scanner of a lab, log only.
var lines2x = []struct {
	name  string
	conf  map[string]string
	flags []string
	nmap  []string
	line  string // the first about the probe
}{
	{"stealth", nil, nil, []string{"-sS", "-p", "11"},
		"Scan from: [10.77.0.2] (10.77.0.2) protocol: [TCP] port: [11] type: [TCP SYN/Normal scan] IP opts: [not set] ignored: [false] triggered: [true] noblock: [true] blocked: [false]"},
	{"connect", nil, []string{"--connect"}, []string{"-sT", "-p", "11"},
		"Scan from: [10.77.0.2] (10.77.0.2) protocol: [TCP] port: [11] type: [Connect] IP opts: [unknown] ignored: [false] triggered: [true] noblock: [true] blocked: [false]"},
	{"UDP over IPv6", nil, nil, []string{"-6", "-sU", "-p", "7"},
		"Scan from: [fd77::2] (fd77::2) protocol: [UDP] port: [7] type: [UDP] IP opts: [unknown] ignored: [false] triggered: [true] noblock: [true] blocked: [false]"},
	{"below the trigger", map[string]string{"SCAN_TRIGGER": "2"}, nil, []string{"-sS", "-p", "11"},
		"Scan from: [10.77.0.2] (10.77.0.2) protocol: [TCP] port: [11] type: [TCP SYN/Normal scan] IP opts: [not set] ignored: [false] triggered: [false] noblock: [unset] blocked: [unset]"},
	{"ignored", map[string]string{"IGNORE_FILE": "fd77::/64\n"}, nil, []string{"-6", "-sS", "-p", "11"},
		"Scan from: [fd77::2] (fd77::2) protocol: [TCP] port: [11] type: [TCP SYN/Normal scan] IP opts: [unknown] ignored: [true] triggered: [unset] noblock: [unset] blocked: [unset]"},
}

// historyTime begins a line of the history of 2.x.
var historyTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4} `)

// Our lines of 2.x are its own, on standard output and in the history.
func TestLines2x(t *testing.T) {
	for _, tt := range lines2x {
		t.Run(tt.name, func(t *testing.T) {
			if os.Getenv("PORTSENTRY_LONG") == "" {
				t.Skip("runs in make test-long")
			}
			l := lab.New(t)
			history := filepath.Join(t.TempDir(), "history")
			conf := map[string]string{"TCP_PORTS": "1,11", "UDP_PORTS": "7", "HISTORY_FILE": history}
			for k, v := range tt.conf {
				if k == "IGNORE_FILE" {
					name := filepath.Join(t.TempDir(), "ignore")
					check(t, os.WriteFile(name, []byte(v), 0o600))
					v = name
				}
				conf[k] = v
			}
			d := harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: l.Host.NS, Config: conf, Args: tt.flags})
			to := l.Host.Addr4()
			if tt.nmap[0] == "-6" {
				to = l.Host.Addr6()
			}
			lab.Nmap(t, l.Scanner.NS, append(tt.nmap, to.String())...)
			if line := first(t, d.Out, harness.ScanPrefix); line != tt.line {
				t.Errorf("standard output\n\t%s\nof 2.0.7\n\t%s", line, tt.line)
			}
			line := first(t, harness.Output(history), harness.ScanPrefix)
			if stamp := historyTime.FindString(line); line != stamp+tt.line || stamp == "" {
				t.Errorf("history\n\t%s\nof 2.0.7\n\tTIME %s", line, tt.line)
			}
		})
	}
}

// first is the first line that has part in it, once there is one.
func first(t *testing.T, o harness.Output, part string) (line string) {
	t.Helper()
	lab.Wait(t, patience, "a line with "+part, func() bool {
		lines, err := o.Lines()
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, line = range lines {
			if strings.Contains(line, part) {
				return true
			}
		}
		return false
	})
	return line
}
