package log

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// fieldsOf reads an entry as systemd-journald does: a line a field, each once.
func fieldsOf(t *testing.T, entry string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for line := range strings.Lines(entry) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if _, twice := out[name]; !ok || twice || !strings.HasSuffix(line, "\n") {
			t.Fatalf("%q is no field, or there twice, in %q", line, entry)
		}
		out[name] = value
	}
	return out
}

func openJournal(t *testing.T, path string) *Journal {
	t.Helper()
	j, err := OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// reading is what comes in, read as it comes: the socket has room for ten.
func (d daemon) reading() <-chan string {
	out := make(chan string, 100)
	go func() {
		defer close(out)
		b := make([]byte, 16<<10)
		for {
			n, err := d.conn.Read(b)
			if err != nil {
				return
			}
			out <- string(b[:n])
		}
	}()
	return out
}

// everything writes a line of each kind.
func everything(w *Writer) {
	w.Starting("3.0.0", "4f1c2ab")
	w.Scan(record(detect.KindUDP))
	w.Scan(blockedBy(native, missing))
	w.Actions(source, []respond.Action{route})
	w.Began(&respond.Ban{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Strength: judge.Full, By: "uid 0", Reason: "because"})
	w.Ended(&respond.Ban{Prefix: netip.MustParsePrefix("203.0.113.9/32"), Strength: judge.Soft, Evidence: judge.E1, Port: 1, Proto: 6, Kind: "syn"}, respond.End{})
	w.Changed("uid 0 (pid 7)", "198.51.100.0/24 is banned")
	w.Problem("disk", "the disk is full\nand slow", false, false)
	w.Problem("disk", "the disk is full\nand slow", true, false)
	w.Info("watching eth0")
	w.Stopping()
}

// Every line is an entry, and its text is what stdout and stderr would have had.
func TestJournalHasTheLines(t *testing.T) {
	for _, format := range []config.LogFormat{config.Log1x, config.Log2x, config.LogJSON} {
		path := filepath.Join(t.TempDir(), "socket")
		entries := listen(t, path).reading()
		var plain, none bytes.Buffer
		w := New(Options{Format: format, Stdout: &plain, Stderr: &plain, Verbose: true})
		everything(w)
		closed(t, w)
		w = New(Options{Format: format, Stdout: &none, Stderr: &none, Journal: openJournal(t, path), Verbose: true})
		everything(w)
		closed(t, w)
		if none.Len() > 0 {
			t.Errorf("%s: beside the journal: %q", format, none.String())
		}
		var want, got []string
		for line := range strings.Lines(plain.String()) {
			if format == config.LogJSON && (strings.HasPrefix(line, "the disk") || strings.HasPrefix(line, "and slow")) {
				continue // stderr says again what is there as JSON
			}
			want = append(want, strings.TrimSuffix(line, "\n"))
		}
		for range want {
			var f map[string]string
			select {
			case e := <-entries:
				f = fieldsOf(t, e)
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: %d entries of %d", format, len(got), len(want))
			}
			got = append(got, f["MESSAGE"])
			if len(f["MESSAGE_ID"]) != 32 || f["SYSLOG_IDENTIFIER"] != "portsentry" || f["PRIORITY"] == "" {
				t.Errorf("%s: %q", format, f)
			}
			if format == config.LogJSON && strings.HasPrefix(f["MESSAGE"], "{") && !strings.HasPrefix(f["MESSAGE"], `{"event":"`+f["PORTSENTRY_EVENT"]+`"`) {
				t.Errorf("event %q of %s", f["PORTSENTRY_EVENT"], f["MESSAGE"])
			}
		}
		if d := cmp.Diff(timeless(want), timeless(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", format, d)
		}
	}
}

// timeless takes the time out of lines of JSON.
func timeless(lines []string) []string {
	for i, l := range lines {
		if before, after, ok := strings.Cut(l, `"time":"`); ok {
			lines[i] = before + after[strings.Index(after, `"`):]
		}
	}
	return lines
}

func TestJournalFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	d := listen(t, path)
	w := New(Options{Format: config.Log2x, Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}, Journal: openJournal(t, path)})
	w.Scan(blockedBy(native, respond.Action{Step: respond.StepCommand, Text: "/bin/sh -c \"\nPRIORITY=0\x1fMESSAGE=\xff\x00"}))
	closed(t, w)
	about := map[string]string{
		"SYSLOG_IDENTIFIER": "portsentry", "PRIORITY": "5",
		"PORTSENTRY_SOURCE": "203.0.113.9", "PORTSENTRY_PROTOCOL": "tcp", "PORTSENTRY_PORT": "1", "PORTSENTRY_KIND": "syn",
		"PORTSENTRY_EVIDENCE": "E1", "PORTSENTRY_BAN": "203.0.113.9/32",
	}
	for _, want := range []struct {
		event event
		text  string
	}{
		{eventAction, "attackalert: Host 203.0.113.9 has been blocked via nftables for 10m0s (new connections; unverified)"},
		{eventAction, `attackalert: External command run for host: 203.0.113.9 using command: "/bin/sh -c "?PRIORITY=0?MESSAGE=` + "\xff?\""},
		{eventSighting, "Scan from: [203.0.113.9] (203.0.113.9) protocol: [TCP] port: [1] type: [TCP SYN/Normal scan] IP opts: [not set] ignored: [false] triggered: [true] noblock: [false] blocked: [true]"},
	} {
		about["PORTSENTRY_EVENT"], about["MESSAGE_ID"], about["MESSAGE"] = want.event.word(), want.event.id(), want.text
		if d := cmp.Diff(about, fieldsOf(t, d.next(t))); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	seen := make(map[string]bool)
	for e := eventNotice; e <= eventProblem; e++ {
		if id := e.id(); seen[id] {
			t.Errorf("%s has the id of another", e.word())
		} else {
			seen[id] = true
		}
	}
}

// A journal that goes away is done without, and taken again when it is back.
func TestJournalGoesAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	d := listen(t, path)
	var out bytes.Buffer
	w := New(Options{Format: config.Log2x, Stdout: &out, Journal: openJournal(t, path)})
	one := func(sentence string) {
		w.Notice(sentence)
		idle(w.console)
	}
	one("first")
	d.conn.Close()
	one("second")
	os.Remove(path)
	one("third")
	d2 := listen(t, path)
	one("fourth")
	closed(t, w)
	if got := fieldsOf(t, d2.next(t))["MESSAGE"]; got != "fourth" {
		t.Errorf("the journal that came back got %q", got)
	}
	if out.String() != "second\nthird\n" || w.Stats().Lost != 0 {
		t.Errorf("stdout got %q, %d lost", out.String(), w.Stats().Lost)
	}
}

// A journal that takes nothing loses lines, counted, and holds nobody up.
func TestJournalIsFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	listen(t, path)
	var out bytes.Buffer
	w := New(Options{Format: config.Log2x, Stdout: &out, Journal: openJournal(t, path)})
	fill, err := OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	for {
		fill.conn.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := fill.conn.Write([]byte("MESSAGE=x\n")); err != nil {
			break
		}
	}
	w.Notice("one too many")
	idle(w.console)
	if got := w.Stats(); got.Lost != 1 || got.Err == nil || out.Len() > 0 {
		t.Errorf("%+v, stdout %q", got, out.String())
	}
}

// The service manager says which of our streams is the journal's.
func TestIsJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	if !IsJournal(f) || IsJournal(os.Stdin) || IsJournal(&bytes.Buffer{}) {
		t.Error("the stream that JOURNAL_STREAM names is not known, or another is")
	}
	t.Setenv("JOURNAL_STREAM", "")
	if IsJournal(f) {
		t.Error("taken for the journal without a word")
	}
}
