package log

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/config"
	"portsentry/internal/detect"
)

// TestConsumers puts the expressions that log watchers are known to have against
// our lines of 1.x. OSSEC, Wazuh and logwatch know the classic mode best.
func TestConsumers(t *testing.T) {
	classic := produced(t, Options{Format: config.Log1x}, func(w *Writer) {
		w.Scan(with(record(detect.KindSYN), connect))
		w.Scan(with(again(), connect))
	})
	// OSSEC's \S and \d are those of everybody else.
	for _, tt := range []struct {
		line, prematch, regex string
		want                  []string
	}{
		{classic[0], "attackalert: Connect from host: ", `^(\S+)/\S+ to (\S+) port: (\d+)$`, []string{"203.0.113.9", "TCP", "1"}},
		{classic[len(classic)-1], "", `Host: (\S+) is`, []string{"203.0.113.9"}},
	} {
		_, rest, found := strings.Cut(tt.line, tt.prematch)
		if m := regexp.MustCompile(tt.regex).FindStringSubmatch(rest); !found || m == nil || cmp.Diff(tt.want, m[1:]) != "" {
			t.Errorf("OSSEC finds %q in %q", m, tt.line)
		}
	}
	if last := classic[len(classic)-1]; !strings.HasSuffix(last, "is already blocked. Ignoring") {
		t.Errorf("OSSEC's prematch: %q", last)
	}

	stealth := produced(t, Options{Format: config.Log1x}, func(w *Writer) {
		w.Watching(advanced(), inUse)
		w.Active()
		for _, k := range []detect.Kind{detect.KindSYN, detect.KindNULL, detect.KindUDP, detect.KindOdd} {
			w.Scan(record(k))
		}
		w.Scan(blockedBy(route))
		w.Scan(again())
	})
	for expression, want := range map[string]int{ // lines that it matches
		`PortSentry is now active`: 1,
		`attackalert: (.+) scan from host: [^/]+/(\S+) to (\w+) port: (\d+)`: 5, // all but the odd flags
		`Host (\S+) has been blocked`:                                        1,
		`Host: (\S+) is already blocked`:                                     1,
		`: (.+) scan detection mode activated. Ignored (\w+) port: (\d+)`:    5, // two served and two excluded for TCP, ...
		`: (.+) mode will manually exclude port: (\d+)`:                      2,
	} {
		n := 0
		for _, line := range stealth {
			if regexp.MustCompile(expression).MatchString(line) {
				n++
			}
		}
		if n != want {
			t.Errorf("logwatch's %s matches %d lines, want %d, of\n%s", expression, n, want, strings.Join(stealth, "\n"))
		}
	}
}
