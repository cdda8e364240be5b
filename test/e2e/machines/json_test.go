package machines_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"portsentry/test/harness"
	"portsentry/test/lab"
)

// event is a line of LOG_FORMAT="json", as far as it is looked at here.
type event struct {
	Event, State, Text, Key, Prefix, Ending, By, Source string
	Over                                                bool
}

// events are the lines so far. Each is one object, whatever it is about.
func events(t *testing.T, out harness.Output) []event {
	t.Helper()
	all, err := out.Lines()
	check(t, err)
	list := make([]event, len(all))
	for i, line := range all {
		if err := json.Unmarshal([]byte(line), &list[i]); err != nil || list[i].Event == "" {
			t.Fatalf("%v: %s", err, line)
		}
	}
	return list
}

// TestJSONTellsEverything: who reads standard output alone knows what portsentry is,
// who is banned and until when he was, and what does not work.
func TestJSONTellsEverything(t *testing.T) {
	l := lab.New(t)
	dir := t.TempDir()
	conf := filepath.Join(dir, "portsentry.conf")
	config := map[string]string{
		"TCP_PORTS": "11", "LOG_FORMAT": "json", "BLOCK_TCP": "1", "BLOCK_METHOD": "auto", "BAN_TIME_UNVERIFIED": "2s",
		"IGNORE_FILE": "", "HISTORY_FILE": "", "BLOCKED_FILE": "", "DATABASE_FILE": "",
	}
	d := harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: l.Host.NS, Dir: dir, Config: config})
	wait := func(what string, is func(e *event) bool) {
		t.Helper()
		lab.Wait(t, patience, what, func() bool {
			for _, e := range events(t, d.Out) {
				if is(&e) {
					return true
				}
			}
			return false
		})
	}
	send := sender(t, l.Scanner)
	check(t, send.SendPacket(syn(l, 11)))
	scanner := l.Scanner.Addr4().String()
	wait("the sighting", func(e *event) bool { return e.Event == "sighting" && e.Source == scanner })
	wait("the end of the ban", func(e *event) bool {
		return e.Event == "end" && e.Prefix == scanner+"/32" && e.Ending == "expired" && e.By == ""
	})

	old, err := os.ReadFile(conf)
	check(t, err)
	check(t, os.WriteFile(conf, []byte("TCP_PORTS=\"x\"\n"), 0o600))
	check(t, d.Signal(syscall.SIGHUP))
	wait("a reload that fails", func(e *event) bool { return e.Event == "problem" && e.Key == "reload" && !e.Over })
	wait("why it does", func(e *event) bool {
		return e.Event == "notice" && strings.Contains(e.Text, "TCP_PORTS")
	})
	check(t, os.WriteFile(conf, old, 0o600))
	check(t, d.Signal(syscall.SIGHUP))
	wait("its end", func(e *event) bool { return e.Event == "problem" && e.Key == "reload" && e.Over })
	check(t, d.Stop())
	var states []string
	for _, e := range events(t, d.Out) {
		if e.State != "" {
			states = append(states, e.State)
		}
	}
	if want := []string{"starting", "active", "reloaded", "stopping"}; !slices.Equal(states, want) {
		t.Errorf("it was %q, want %q", states, want)
	}
}
