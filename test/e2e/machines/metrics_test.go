package machines_test

import (
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portsentry/test/harness"
	"portsentry/test/lab"
)

// TestMetrics: whoever asks gets what was counted, over a port that is no trap, even
// where every port below 1024 is.
func TestMetrics(t *testing.T) {
	l := lab.New(t)
	at := net.JoinHostPort(l.Host.Addr4().String(), "797")
	dir := t.TempDir()
	config := map[string]string{
		"ADVANCED_PORTS_TCP": "1024", "ADVANCED_PORTS_UDP": "1024", "METRICS_LISTEN": at, "BLOCK_TCP": "1", "BLOCK_METHOD": "auto",
		"IGNORE_FILE": "", "HISTORY_FILE": "", "BLOCKED_FILE": "", "DATABASE_FILE": "",
	}
	d := harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: l.Host.NS, Dir: dir, Config: config, Args: []string{"--advanced"}})
	// The scanner asks first, over the very interface that is watched.
	for path, want := range map[string]string{"/healthz": "ok\n", "/": "there is /metrics and /healthz\n"} {
		if _, body := ask(t, l.Scanner.NS, "tcp", at, path); body != want {
			t.Errorf("%s: %q", path, body)
		}
	}
	send := sender(t, l.Scanner)
	for i, port := range []int{23, 24} {
		p := syn(l, port)
		p.Src = p.Src.Next() // somebody else is banned
		for range i {
			p.Src = p.Src.Next()
		}
		check(t, send.SendPacket(p))
	}
	const seen = `portsentry_sightings_total{kind="syn",protocol="tcp"}`
	var got map[string]float64
	lab.Wait(t, patience, "both bans", func() bool {
		status, body := ask(t, l.Scanner.NS, "tcp", at, "/metrics")
		if status != 200 {
			t.Fatalf("%d: %s", status, body)
		}
		got = samples(t, body)
		return got["portsentry_bans_made_total"] == 2 && got[seen] == 2
	})
	for name, want := range map[string]float64{
		`portsentry_bans{strength="soft",evidence="E1"}`: 2, "portsentry_healthy": 1, "portsentry_problems": 0, "portsentry_bans_enforced_ratio": 1,
		`portsentry_trap_ports{protocol="tcp"}`: 1023, "portsentry_queue_lost_total": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	watched := 0.0
	for name, v := range got {
		if strings.HasPrefix(name, "portsentry_interfaces{") {
			watched += v
		}
		for _, who := range []string{"10.77.", "fd77:"} {
			if strings.Contains(name, who) {
				t.Errorf("%s names an address", name)
			}
		}
	}
	if watched != 1 {
		t.Errorf("%v interfaces are watched", watched)
	}
	lab.Wait(t, patience, "a look at the bans in the kernel", func() bool {
		out, err := d.Command(t.Context(), "health")
		check(t, err)
		return string(out) == "ok; 2 of 2 bans enforced\n"
	})
}

// TestMetricsMove: a reload opens them elsewhere, and keeps them where they are when
// that cannot be.
func TestMetricsMove(t *testing.T) {
	l := lab.New(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "metrics.sock")
	config := map[string]string{
		"TCP_PORTS": "11", "METRICS_LISTEN": "127.0.0.1:9797", "BLOCK_TCP": "0", "BLOCK_UDP": "0",
		"IGNORE_FILE": "", "HISTORY_FILE": "", "BLOCKED_FILE": "", "DATABASE_FILE": "",
	}
	d := harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: l.Host.NS, Dir: dir, Config: config})
	says := func(network, address, want string) {
		t.Helper()
		if _, body := ask(t, l.Host.NS, network, address, "/healthz"); !strings.Contains(body, want) {
			t.Errorf("%s says %q, want %q", address, body, want)
		}
	}
	reload := func(listen, want string) {
		t.Helper()
		config["METRICS_LISTEN"] = listen
		check(t, harness.WriteConfig(filepath.Join(dir, "portsentry.conf"), config))
		count := func() (n int) {
			for _, out := range []harness.Output{d.Out, d.Err} {
				all, err := out.Lines()
				check(t, err)
				for _, line := range all {
					if strings.Contains(line, want) {
						n++
					}
				}
			}
			return n
		}
		before := count()
		check(t, d.Signal(syscall.SIGHUP))
		lab.Wait(t, patience, want, func() bool { return count() > before })
	}
	const done, nobody = "has been read again and is in force", "connection refused"
	says("tcp", "127.0.0.1:9797", "ok\n")
	reload("127.0.0.1:9798", done)
	says("tcp", "127.0.0.1:9797", nobody)
	says("tcp", "127.0.0.1:9798", "ok\n")
	reload("0.0.0.0:9798", done) // the same port, which it has itself
	says("tcp", net.JoinHostPort(l.Host.Addr4().String(), "9798"), "ok\n")
	var other net.Listener
	check(t, l.Host.NS.Do(func() (err error) {
		other, err = net.Listen("tcp", "127.0.0.1:9799")
		return err
	}))
	defer other.Close()
	reload("127.0.0.1:9799", "METRICS_LISTEN: listen tcp 127.0.0.1:9799: bind: address already in use")
	says("tcp", "127.0.0.1:9798", "the configuration in force is older than the file")
	if out, err := d.Command(t.Context(), "health"); err == nil || len(out) > 0 {
		t.Errorf("health says %q, %v", out, err)
	}
	reload("", done)
	says("tcp", "127.0.0.1:9798", nobody)
	check(t, d.Stop())

	config["METRICS_LISTEN"] = socket
	d = harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: l.Host.NS, Dir: dir, Config: config})
	says("unix", socket, "ok\n")
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
	check(t, d.Stop())
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
	config["METRICS_LISTEN"] = "127.0.0.1:9799"
	_, err := harness.Start(t.Context(), harness.Options{Binary: lab.Binary(t), NS: l.Host.NS, Dir: dir, Config: config})
	if err == nil || !strings.Contains(err.Error(), "address already in use; somebody else listens there") {
		t.Errorf("a start with a port of somebody else: %v", err)
	}
}

// The table of docs/metrics.md is written by TestMetricsAreAsDocumented.
const (
	docs       = "../../../docs/metrics.md"
	tableBegin = "<!-- table: go test ./test/e2e/machines -run TestMetricsAreAsDocumented -update -->\n| name | type | labels | meaning |\n|---|---|---|---|\n"
	tableEnd   = "<!-- end of table -->\n"
)

var update = flag.Bool("update", false, "write docs/metrics.md and testdata anew")

// heading is a family: its name and help, or its type.
var heading = regexp.MustCompile(`^# (HELP|TYPE) (\S+) (.*)$`)

// TestMetricsAreAsDocumented compares docs/metrics.md with all that daemons of both
// sorts have, name by name, and their whole output, but for the numbers, with what
// it was.
func TestMetricsAreAsDocumented(t *testing.T) {
	l := lab.New(t)
	var rows []string // of the table, in the order of the output
	for _, tt := range []struct {
		name   string
		config map[string]string
		args   []string
	}{
		{"stealth", map[string]string{"SCAN_DETECT": "full", "VERIFY_SOURCE": "1"}, nil},
		{"connect", nil, []string{"--connect"}},
	} {
		config := map[string]string{
			"TCP_PORTS": "11,15", "UDP_PORTS": "7", "BLOCK_TCP": "1", "BLOCK_UDP": "1", "BLOCK_METHOD": "auto", "IGNORE_FILE": "",
			"METRICS_LISTEN": "127.0.0.1:9797", "RESOLVE_HOST": "0", "CAPTURE": "auto",
		}
		maps.Copy(config, tt.config)
		dir := t.TempDir()
		for _, key := range []string{"HISTORY_FILE", "BLOCKED_FILE", "DATABASE_FILE"} {
			config[key] = filepath.Join(dir, key)
		}
		d := harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: l.Host.NS, Dir: dir, Config: config, Args: tt.args})
		status, text := ask(t, l.Host.NS, "tcp", "127.0.0.1:9797", "/metrics")
		if status != 200 {
			t.Fatalf("%s: %d: %s", tt.name, status, text)
		}
		check(t, d.Stop())
		golden(t, filepath.Join("testdata", tt.name+".metrics"), mask(text))
		help := ""
		labels := make(map[string][]string)
		var families [][3]string // name, type, help
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			m := heading.FindStringSubmatch(line)
			switch {
			case m == nil:
				name, rest, _ := strings.Cut(line, "{")
				for _, l := range regexp.MustCompile(`([a-z]+)="`).FindAllStringSubmatch(rest, -1) {
					if !slices.Contains(labels[name], l[1]) {
						labels[name] = append(labels[name], l[1])
					}
				}
			case m[1] == "HELP":
				help = m[3]
			default:
				families = append(families, [3]string{m[2], m[3], help})
			}
		}
		for _, f := range families {
			marked := "-"
			if len(labels[f[0]]) > 0 {
				marked = "`" + strings.Join(labels[f[0]], "`, `") + "`"
			}
			row := fmt.Sprintf("| `%s` | %s | %s | %s |\n", f[0], f[1], marked, f[2])
			if !slices.Contains(rows, row) {
				rows = append(rows, row)
			}
		}
	}
	doc, err := os.ReadFile(docs)
	check(t, err)
	table := strings.Join(rows, "")
	before, rest, ok := strings.Cut(string(doc), tableBegin)
	old, after, ok2 := strings.Cut(rest, tableEnd)
	switch {
	case !ok || !ok2:
		t.Errorf("%s has no place for the table", docs)
	case *update:
		check(t, os.WriteFile(docs, []byte(before+tableBegin+table+tableEnd+after), 0o644))
	case old != table:
		t.Errorf("the table of %s is old (run with -update):\n%s", docs, cmp.Diff(old, table))
	}
}

// mask takes the numbers out, and what differs from build to build.
func mask(text string) string {
	text = regexp.MustCompile(`(?m)^([^#\n].*) [-+.0-9eInfa]+$`).ReplaceAllString(text, "$1 N")
	text = regexp.MustCompile(`(version|commit|goversion)="[^"]*"`).ReplaceAllString(text, `$1="X"`)
	return regexp.MustCompile(`capture="[^"]*"`).ReplaceAllString(text, `capture="X"`)
}

// golden compares text with a file, and with -update makes it that.
func golden(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		check(t, os.WriteFile(path, []byte(text), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	check(t, err)
	if string(want) != text {
		t.Errorf("%s is no longer what comes out (run with -update):\n%s", path, cmp.Diff(string(want), text))
	}
}
