package cli

import (
	"bufio"
	"encoding/json"
	"flag"

	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"portsentry/internal/view"
)

var update = flag.Bool("update", false, "write what the commands print into testdata/past")

// asFile gives the file of a session, nil if there is none.
func asFile(a *txtar.Archive, name string) []byte {
	for _, f := range a.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

// TestPast types testdata/past/*.txtar: the first line of each is a command, "ask" is
// what it has to ask the daemon for, "answer" what that says, "stdout" what is printed,
// and "error" how it ends if not well.
func TestPast(t *testing.T) {
	files, err := filepath.Glob("testdata/past/*.txtar")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d sessions: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			command, _, _ := strings.Cut(string(a.Comment), "\n")
			asked := ""
			socket := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
				asked = r.Method + " " + r.URL.RequestURI() + "\n"
				_, _ = w.Write(asFile(a, "answer"))
			})
			words := strings.Fields(command)
			if columns, ok := strings.CutPrefix(words[0], "COLUMNS="); ok {
				t.Setenv("COLUMNS", columns)
				words = words[1:]
			}
			out, code, message := run(t, socket, words[1:]...)
			failed := ""
			if code != 0 {
				failed = message + "\n"
			}
			got := &txtar.Archive{Comment: a.Comment, Files: []txtar.File{
				{Name: "ask", Data: []byte(asked)}, {Name: "answer", Data: asFile(a, "answer")}, {Name: "stdout", Data: []byte(out)},
			}}
			if failed != "" {
				got.Files = append(got.Files, txtar.File{Name: "error", Data: []byte(failed)})
			}
			if diff := cmp.Diff(string(txtar.Format(a)), string(txtar.Format(got))); diff != "" && !*update {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for line := range strings.Lines(out) {
				if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 && strings.HasPrefix(string(a.Comment), "COLUMNS=80") && !strings.Contains(line, ">>") {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		})
	}
}

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	at := time.Date(2026, 11, 21, 10, 30, 0, 0, zone)
	for in, want := range map[string]string{
		"90s": "2026-11-21T10:28:30+01:00", "1h30m": "2026-11-21T09:00:00+01:00", "2d": "2026-11-19T10:30:00+01:00", "1w": "2026-11-14T10:30:00+01:00",
		"09:15": "2026-11-21T09:15:00+01:00", "10:31": "2026-11-20T10:31:00+01:00", "2026-11-20": "2026-11-20T00:00:00+01:00", "2026-11-20 08:00": "2026-11-20T08:00:00+01:00",
		"2026-11-20T08:00:00Z": "2026-11-20T08:00:00Z", "": "", "1": "", "h": "", "1y": "", "-1h": "", "99999999999h": "", "yesterday": "", "25:00": "",
	} {
		got, err := parseTime("since", in, at)
		if want == "" {
			if err == nil {
				t.Errorf("%q: %v, want an error", in, got)
			}
			continue
		}
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v; want %s", in, got.Format(time.RFC3339), err, want)
		}
	}
}

func TestPastRefuses(t *testing.T) {
	for command, want := range map[string]string{
		"events --since soon":           `--since: "soon" is no time; give how long ago (90s, 1h, 2d, 1w) or when ("2026-11-21 09:30", 09:30, 2026-11-21)`,
		"events --kind sny":             `--kind: "sny" is none of probes, scan, ban, end, change, syn, fin, null, xmas, maimon, ack, odd, udp, connect, sctp-init, sctp-cookie, ip-protocol, icmp-sweep, icmp-timestamp, icmp-mask, os-detection, version, worm`,
		"events --source here":          `--source: "here" is no address; give one like 203.0.113.9 or 2001:db8::9`,
		"events -n -1":                  "-n -1: must be 1 or more",
		"why":                           "why takes one address, not 0; for example: portsentry why 203.0.113.9",
		"why 203.0.113.0/24":            "why takes one address, and 203.0.113.0/24 is a range; ask about one in it: portsentry why 203.0.113.0",
		"why 192.0.2.1 --json --pcap x": "--json and --pcap are two answers; give one of them",
		"report --format pdf":           `--format: "pdf" is none of text, markdown, html, json`,
	} {
		if out, code, message := run(t, "/nowhere/s", strings.Fields(command)...); code != 2 || message != want || out != "" {
			t.Errorf("%s: exit %d %q, wrote %q; want 2 %q", command, code, message, out, want)
		}
	}
}

// Followed, events come as they happen, and the end of the daemon is said.
func TestFollow(t *testing.T) {
	told := make(chan view.Event)
	socket := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.RequestURI(); got != "/v1/events?follow=1&kind=syn" {
			t.Errorf("asked for %s", got)
		}
		for e := range told {
			_ = json.NewEncoder(w).Encode(e)
			_ = http.NewResponseController(w).Flush()
		}
	})
	for _, asJSON := range []bool{false, true} {
		told = make(chan view.Event)
		go func() {
			defer close(told)
			told <- view.Event{Time: now.Add(123 * time.Millisecond), Type: view.TypeProbes, Kind: "syn", Source: "203.0.113.9", Count: 1, Text: "port 1/tcp of 10.0.0.5; unverified\x1b[2J"}
			told <- view.Event{Time: now.Add(-24 * time.Hour), Type: view.TypeLost, Count: 7, Text: "7 things happened here for which you were too slow"}
		}()
		args, want := []string{"events", "-f", "--kind", "syn"}, `09:30:00.123  syn       203.0.113.9      port 1/tcp of 10.0.0.5; unverified?[2J
20 Nov 09:30:00.000  lost                       7 things happened here for which you were too slow
`
		if asJSON {
			args, want = append(args, "--json"), `{"time":"2026-11-21T09:30:00.123Z","type":"probes","source":"203.0.113.9","kind":"syn","count":1,"text":"port 1/tcp of 10.0.0.5; unverified\u001b[2J"}
{"time":"2026-11-20T09:30:00Z","type":"lost","count":7,"text":"7 things happened here for which you were too slow"}
`
		}
		out, code, message := run(t, socket, args...)
		if code != 1 || message != "portsentry has gone: nothing more is told; it may be starting again: try portsentry status" {
			t.Errorf("exit %d %q", code, message)
		}
		if diff := cmp.Diff(want, out); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// What is in a report is harmless in a page: it has no script and asks nobody.
func TestReportEscapes(t *testing.T) {
	evil := "<script>alert(1)</script>|`x`\x1b[2J"
	r := view.Report{Host: evil, Version: evil, TopSources: []view.Source{{Tool: evil, Name: evil, Kinds: []string{evil}}}, Kinds: []view.Tally{{What: evil, Note: evil}}, Bans: []view.PastBan{{Ban: view.Ban{Reason: evil}, By: evil, EndedBy: evil, Ended: &now}}}
	for format, write := range formats {
		var page strings.Builder
		if err := report(&page, func(w *bufio.Writer) error { return write(w, &r, now, 80) }); err != nil {
			t.Fatal(err)
		}
		bad := map[string][]string{"html": {"<script", "http:", "https:", "src=", "\x1b"}, "markdown": {"<script", "|`", "\x1b"}, "text": {"\x1b"}}[format]
		for _, one := range bad {
			if strings.Contains(strings.ReplaceAll(page.String(), "\\<", ""), one) {
				t.Errorf("%s: %q in\n%s", format, one, page.String())
			}
		}
	}
}

// A capture is the answer's packets, and nothing else on standard output.
func TestPcapGoesWhereItIsAskedTo(t *testing.T) {
	y := view.Why{Packets: samplePackets()}
	socket := serve(t, map[string]any{"GET /v1/why/203.0.113.9": y, "GET /v1/why/203.0.113.8": view.Why{}})
	out, code, message := run(t, socket, "why", "203.0.113.9", "--pcap", "-")
	if code != 0 || !strings.HasPrefix(out, "\x4d\x3c\xb2\xa1") {
		t.Errorf("exit %d %q, %d bytes", code, message, len(out))
	}
	path := filepath.Join(t.TempDir(), "why.pcap")
	said, code, message := run(t, socket, "why", "203.0.113.9", "--pcap", path)
	written, err := os.ReadFile(path)
	if code != 0 || err != nil || string(written) != out || !strings.Contains(said, "payloads are not kept") {
		t.Errorf("exit %d %q, %q, %v", code, message, said, err)
	}
	if _, code, message := run(t, socket, "why", "203.0.113.8", "--pcap", path); code != 1 || message != "no packet of invalid IP is kept" {
		t.Errorf("exit %d %q", code, message)
	}
	if _, code, _ := run(t, socket, "why", "203.0.113.9", "--pcap", "/nowhere/x"); code != 2 {
		t.Errorf("exit %d where nothing can be written", code)
	}

}
