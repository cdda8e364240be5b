package log

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// The fields are docs/json.md's, which a test of package view compares; here is
// how whole lines look.
func TestJSONLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the clock stands at 2000-01-01
		var out bytes.Buffer
		w := New(Options{Format: config.LogJSON, Stdout: &out})
		w.InterfaceName = func(index int32) string { return map[int32]string{2: "eth0"}[index] }
		w.Scan(record(detect.KindUDP))
		failed := blockedBy(native, missing)
		failed.Verdict.Sighting.IfIndex = 3
		w.Scan(failed)
		w.Actions(source, []respond.Action{route})
		w.Notice(`say "hello"`)
		closed(t, w)

		const head = `{"event":"sighting","time":"2026-11-21T09:14:02.113000000Z","source":"203.0.113.9","source_port":40000,` +
			`"destination":"10.0.0.5","destination_port":1,`
		want := head + `"interface":"eth0","protocol":"udp","kind":"udp","type":"UDP","ttl":52,"ip_options":false,"fragmented":false,` +
			`"count":1,"ignored":false,"triggered":true,"noblock":true,"blocked":false,"already_blocked":false,` +
			`"evidence":"E1","strength":"none","peer":false,"reason":"log only"}` + "\n" +
			head + `"protocol":"tcp","kind":"syn","type":"TCP SYN/Normal scan","flags":"SYN","ttl":52,"ip_options":false,"fragmented":false,` +
			`"count":1,"ignored":false,"triggered":true,"noblock":false,"blocked":true,"already_blocked":false,` +
			`"evidence":"E1","strength":"soft","peer":false,"reason":"syn to trap port 1, unverified",` +
			`"ban":{"prefix":"203.0.113.9/32","scope":"all","length_s":600}}` + "\n" +
			`{"event":"action","time":"2000-01-01T00:00:00.000000000Z","host":"203.0.113.9","step":"native","ok":true,"skipped":false,` +
			`"text":"nftables for 10m0s (new connections; unverified)","took_ms":0}` + "\n" +
			`{"event":"action","time":"2000-01-01T00:00:00.000000000Z","host":"203.0.113.9","step":"route","ok":false,"skipped":false,` +
			`"text":"/nonexistent 203.0.113.9","error":"exit status 127 (not found)","took_ms":0}` + "\n" +
			`{"event":"action","time":"2000-01-01T00:00:00.000000000Z","host":"203.0.113.9","step":"route","ok":true,"skipped":false,` +
			`"text":"/sbin/ip route add blackhole 203.0.113.9","took_ms":2.5}` + "\n" +
			`{"event":"notice","time":"2000-01-01T00:00:00.000000000Z","text":"say \"hello\""}` + "\n"
		if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(out.String(), "\n")); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}

// FuzzAppendString: what appendString writes is one line without control
// characters, and encoding/json reads the same from it as from its own.
func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "plain", `"\`, "a\nb\x00\x7f", "\u0085\u009b", "\xff\xc3", "\ufffd", "é世\U0001F600", strings.Repeat("é", 600)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := appendString(nil, s)
		for _, r := range string(got) {
			if r < ' ' || r >= 0x7f && r <= 0x9f {
				t.Fatalf("%q holds the control character %U", got, r)
			}
		}
		if !utf8.Valid(got) {
			t.Fatalf("%q is no UTF-8", got)
		}
		want := s
		if len(s) > maxLine {
			want = s[:maxLine-3] + "..."
		}
		theirs, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var a, b string
		if err := json.Unmarshal(got, &a); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if err := json.Unmarshal(theirs, &b); err != nil {
			t.Fatal(err)
		}
		if a != b {
			t.Errorf("appendString(%q) reads as %q, want %q", s, a, b)
		}
	})
}

// FuzzJSONLines: whatever texts hold, every line is one object of JSON with an event
// and a time, without control characters.
func FuzzJSONLines(f *testing.F) {
	f.Add("plain", "name.example")
	f.Add("a\nb\x00\x7f\x1f\u009b", "\xff\xc3\"\\")
	f.Add(strings.Repeat("é\n", 900), "{}")
	f.Fuzz(func(t *testing.T, text, name string) {
		var out bytes.Buffer
		w := New(Options{Format: config.LogJSON, Stdout: &out})
		w.InterfaceName = func(int32) string { return name }
		w.Scan(with(blockedBy(native, respond.Action{Step: respond.StepCommand, Text: text, Err: errors.New(name)}), func(r *store.Record) {
			r.Name, r.Verdict.Reason, r.Verdict.Sighting.Scan = name, text, detect.Found{Kind: detect.KindSYN, Tool: name}
		}))
		w.Notice(text)
		w.Error(text)
		w.Problem(name, text, true, true)
		w.Changed(name, text)
		w.Began(&respond.Ban{Reason: text, By: "uid 0 " + name})
		w.Ended(&respond.Ban{}, respond.End{By: name})
		closed(t, w)
		for line := range bytes.Lines(out.Bytes()) {
			var object struct {
				Event string    `json:"event"`
				Time  time.Time `json:"time"`
			}
			if err := json.Unmarshal(line, &object); err != nil || object.Event == "" || object.Time.IsZero() {
				t.Errorf("%v: %q", err, line)
			}
			if i := bytes.IndexFunc(bytes.TrimSuffix(line, []byte("\n")), unicode.IsControl); i >= 0 {
				t.Errorf("a control character: %q", line[i:])
			}
		}
	})
}
