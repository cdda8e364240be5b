package tui

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"portsentry/internal/view"
)

func foot(m *model) string { return strings.Join(m.foot(), "\n") }

// Nobody is banned or unbanned without a y after a question that names him.
func TestOrders(t *testing.T) {
	for _, c := range []struct {
		name  string
		keys  []string
		order string // that the daemon gets
		says  string
	}{
		{"unban", []string{"4", "down", "u", "y"}, "unban 203.0.113.9/32", "203.0.113.9 is no longer banned"},
		{"unban of a range", []string{"4", "end", "u", "y"}, "unban 198.51.100.0/24", "198.51.100.0/24 is no longer banned"},
		{"no", []string{"4", "u", "n"}, "", "nothing was done"},
		{"another key is no", []string{"4", "u", "q"}, "", "nothing was done"},
		{"ban", []string{"2", "b", "enter", "y"}, `ban 203.0.113.9/32 ""`, "203.0.113.9 is banned"},
		{"ban for", append(append([]string{"2", "b"}, words("2h")...), "enter", "y"), `ban 203.0.113.9/32 "2h"`, "203.0.113.9 is banned"},
		{"typed wrong", []string{"2", "b", "2", "x", "enter", "y"}, "", "2x"},
		{"then right", []string{"2", "b", "2", "x", "enter", "backspace", "h", "enter", "y"}, `ban 203.0.113.9/32 "2h"`, "is banned"},
		{"given up", []string{"2", "b", "2", "esc", "y"}, "", "enter why"},
		{"from why", []string{"2", "enter", "u", "y"}, "unban 203.0.113.9/32", "is no longer banned"},
		{"about nobody", []string{"1", "end", "u", "y"}, "", "enter why"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, f := sample(t, 80, 24)
			press(t, m, c.keys...)
			if got := strings.Join(f.orders, "; "); got != c.order {
				t.Errorf("ordered %q, want %q", got, c.order)
			}
			if got := foot(m); !strings.Contains(got, c.says) {
				t.Errorf("said %q, want %q", got, c.says)
			}
		})
	}
}

// What the daemon refuses is said with its hint, all of it, and nothing of it is more
// than text.
func TestRefused(t *testing.T) {
	m, f := sample(t, 80, 24)
	f.refuses = errors.New("203.0.113.9 is connected to a service\x1b[2J: TCP 10.0.0.5:22 from 203.0.113.9:52011; ban it all the same with --force, as root")
	press(t, m, "2", "b", "enter", "y")
	if got := foot(m); !strings.Contains(got, "with --force") || strings.Contains(got, "\x1b") {
		t.Errorf("said %q", got)
	}
	fits(t, m)
	press(t, m, "down")
	if got := foot(m); !strings.HasPrefix(got, "enter why") {
		t.Errorf("after a key: %q", got)
	}
	press(t, m, "enter")
	if m.mode != modeRows || !strings.Contains(foot(m), "with --force") {
		t.Errorf("no answer to why: mode %d, %q", m.mode, foot(m))
	}
}

// What is pasted is typed where something is typed, and no key anywhere else.
func TestPaste(t *testing.T) {
	m, f := sample(t, 80, 24)
	m.Update(tea.PasteMsg{Content: "uy"})
	press(t, m, "4", "u")
	m.Update(tea.PasteMsg{Content: "y"})
	press(t, m, "esc", "/")
	m.Update(tea.PasteMsg{Content: " 2001:db8::/32\n"})
	m.Update(tea.PasteMsg{Content: "\x1b[2J"})
	m.Update(tea.PasteMsg{Content: strings.Repeat("1", 1000)})
	press(t, m, "enter", "2")
	if len(f.orders) != 0 || m.filter.text != "2001:db8::/32" || len(m.rows()) != 1 {
		t.Errorf("orders %q, filter %q, %d rows", f.orders, m.filter.text, len(m.rows()))
	}
	press(t, m, "esc")
	if len(m.rows()) != 4 {
		t.Errorf("%d rows without a filter", len(m.rows()))
	}
}

// One stays on the row one went to, whatever comes before it; on the first row, whatever
// comes there.
func TestPlace(t *testing.T) {
	m, _ := sample(t, 80, 24)
	on := func() string { rows := m.rows(); return rows[m.place(rows)].who }
	press(t, m, "2", "down")
	was := on()
	for range orders {
		press(t, m, "o")
		if on() != was {
			t.Errorf("by %s on %s, was on %s", orderNames[m.order], on(), was)
		}
	}
	press(t, m, "1")
	m.Update(beat{at: now, events: []view.Event{{Time: now, Type: view.TypeBan, Source: "192.0.2.1"}}})
	if on() != "192.0.2.1" {
		t.Errorf("at the top on %s", on())
	}
	press(t, m, "u") // whom one sees when one begins
	m.Update(beat{at: now, events: []view.Event{{Time: now, Type: view.TypeBan, Source: "192.0.2.2"}}})
	if got := foot(m); got != "unban 192.0.2.1? y/n" {
		t.Error(got)
	}
}

// In a pause nothing moves; what happened meanwhile comes after it.
func TestPause(t *testing.T) {
	m, _ := sample(t, 80, 24)
	press(t, m, "p")
	before := m.screen
	for i := range 10 {
		m.Update(beat{at: now.Add(time.Minute), events: slicesOf(view.Event{Time: now, Type: view.TypeBan, Source: fmt.Sprintf("192.0.2.%d", i)}, 100), lost: 1})
		m.Update(answer{of: askSources, ended: now.Add(time.Minute)})
	}
	if m.screen != before || !strings.Contains(m.screen, "PAUSED") {
		t.Errorf("changed in a pause:\n%s", m.screen)
	}
	if len(m.held.events) > maxEvents {
		t.Errorf("%d events are held", len(m.held.events))
	}
	press(t, m, "p")
	if !strings.Contains(m.screen, "192.0.2.9") || m.lost != 9220 {
		t.Errorf("%d lost:\n%s", m.lost, m.screen)
	}
}

func slicesOf(e view.Event, n int) (out []view.Event) {
	for range n {
		out = append(out, e)
	}
	return out
}

// A flood of everything takes no more room than there is, and is drawn at beats alone.
func TestBounds(t *testing.T) {
	m, _ := sample(t, 80, 24)
	base := netip.MustParseAddr("10.0.0.0")
	for round := range 40 {
		var events []view.Event
		var list view.SourceList
		for i := range 250 {
			base = base.Next()
			events = append(events, view.Event{Time: now.Add(time.Second), Type: view.TypeProbes, Source: base.String(), Kind: "syn", Protocol: "tcp", Port: uint16(round*250 + i + 1), Count: 1})
			list.Sources = append(list.Sources, view.Source{Address: base, Last: now.Add(time.Duration(round) * time.Second)})
		}
		m.Update(beat{at: now.Add(time.Duration(round) * time.Second), events: events})
		before := m.screen
		m.Update(answer{of: askSources, since: now, began: now, ended: now.Add(time.Duration(round) * time.Second), sources: list})
		m.Update(answer{of: askBans, ended: now, bans: sampleBans()})
		if m.screen != before {
			t.Fatal("an answer was drawn before its beat")
		}
	}
	if len(m.events) != maxEvents || len(m.sources) != maxRows || len(m.ports) > maxPorts || !m.moreSources {
		t.Errorf("%d events, %d sources (more: %v), %d ports", len(m.events), len(m.sources), m.moreSources, len(m.ports))
	}
	if m.sources[base] == nil {
		t.Error("the latest source is not kept")
	}
}

// A daemon that answers slowly is asked seldom, and one that has gone by one question a
// second.
func TestAsking(t *testing.T) {
	m, f := sample(t, 80, 24)
	asks := func() (all []question) {
		for q := range m.asking {
			m.asking[q].waits = false
		}
		m.ask()
		for q := range questions {
			if m.asking[q].waits {
				all = append(all, q)
			}
		}
		return all
	}
	m.answered(&answer{of: askSources, began: now, ended: now.Add(3 * time.Second)})
	m.now = now.Add(62 * time.Second)
	if got := asks(); len(got) != 0 {
		t.Errorf("asked %v", got)
	}
	m.now = now.Add(63 * time.Second)
	if got := asks(); len(got) != 1 || got[0] != askSources {
		t.Errorf("asked %v", got)
	}
	m.askAll()
	if got := asks(); len(got) != 3 { // the bans are not shown
		t.Errorf("asked %v", got)
	}
	f.refuses = errors.New("portsentry is not running")
	m.answered(&answer{of: askStatus, ended: m.now, err: f.refuses})
	m.askAll()
	if got := asks(); len(got) != 1 || got[0] != askStatus || m.gone == "" {
		t.Errorf("asked %v of one that has gone (%q)", got, m.gone)
	}
	m.answered(&answer{of: askStatus, ended: m.now, status: sampleStatus()})
	if got := asks(); len(got) != 3 || m.gone != "" {
		t.Errorf("asked %v of one that is back (%q)", got, m.gone)
	}
}

// A text is made again for another width, and stays where one is in it.
func TestFold(t *testing.T) {
	m, _ := sample(t, 80, 24)
	press(t, m, "2", "enter", "down", "down")
	_, cmd := m.Update(tea.WindowSizeMsg{Width: 60, Height: 20})
	if cmd == nil {
		t.Fatal("it was not asked again")
	}
	m.Update(cmd())
	if m.text.top != 2 || m.text.lines[0] != "203.0.113.9 is banned, in 60 columns" {
		t.Errorf("top %d, %q", m.text.top, m.text.lines[0])
	}
}
