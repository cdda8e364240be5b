package tui

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/google/go-cmp/cmp"

	"portsentry/internal/view"
)

var update = flag.Bool("update", false, "write the screens into testdata")

var now = time.Date(2026, 11, 21, 9, 15, 0, 0, time.Local)

// fake is a daemon of paper. Orders are noted.
type fake struct {
	refuses error
	orders  []string
}

func (f *fake) Status(context.Context) (view.Status, error) { return sampleStatus(), f.refuses }
func (f *fake) Report(context.Context, time.Time) (view.Report, error) {
	return view.Report{}, f.refuses
}
func (f *fake) Sources(context.Context, time.Time, int) (view.SourceList, error) {
	return view.SourceList{}, f.refuses
}
func (f *fake) Bans(context.Context, int) ([]view.Ban, bool, error) { return nil, false, f.refuses }
func (f *fake) Follow(ctx context.Context, _ int, _ func(view.Event)) error {
	<-ctx.Done()
	return ctx.Err()
}

func (f *fake) Why(_ context.Context, a netip.Addr, width int) (string, error) {
	text := fmt.Sprintf("%s is banned, in %d columns\n", a, width)
	for i := range 60 {
		text += fmt.Sprintf("  line %d\x1b[2J\n", i)
	}
	return text, f.refuses
}

func (f *fake) Ban(_ context.Context, p netip.Prefix, length string) (string, error) {
	f.orders = append(f.orders, fmt.Sprintf("ban %s %q", p, length))
	return view.Who(p) + " is banned\n", f.refuses
}

func (f *fake) Unban(_ context.Context, p netip.Prefix) (string, error) {
	f.orders = append(f.orders, "unban "+p.String())
	return view.Who(p) + " is no longer banned\n", f.refuses
}

func sampleStatus() view.Status {
	checked := now.Add(-4 * time.Second)
	return view.Status{
		Started: now.Add(-291 * time.Hour), BlockTCP: 1, Bans: 3, CheckedBans: 3, Enforced: 3, Checked: &checked,
		Counters: []view.Counter{{Name: "sightings_total", Value: 1204}, {Name: "kernel_dropped_full_total", Value: 9000}},
	}
}

// long is as long as an address gets.
const long = "2001:db8:1111:2222:3333:4444:5555:6666"

func sampleEvents() []view.Event {
	at := func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }
	last := at(-1)
	return []view.Event{
		{Time: at(-90000), Type: view.TypeChange, Text: "configuration read again, by uid 0"},
		{Time: at(-300), Last: &last, Type: view.TypeProbes, Source: "198.51.100.7", Kind: "syn", Protocol: "tcp", Count: 41, Port: 23, Ports: 3, Text: "ports 23/tcp and 2 more of 10.0.0.5"},
		{Time: at(-8), Type: view.TypeProbes, Source: long, Kind: "udp", Protocol: "udp", Count: 1, Port: 7, Ports: 1, Text: "port 7/udp of 2001:db8::5; unverified\x1b[2J\u202e"},
		{Time: at(1), Type: view.TypeProbes, Source: "203.0.113.9", Kind: "syn", Protocol: "tcp", Count: 1, Port: 1, Ports: 1, Text: "port 1/tcp of 10.0.0.5; unverified"},
		{Time: at(1), Type: view.TypeBan, Source: "203.0.113.9", Text: "for 1h: syn to trap port 1, unverified"},
		{Time: at(2), Type: view.TypeScan, Source: "203.0.113.9", Kind: "syn", Protocol: "tcp", Count: 14, Ports: 14, Text: "vertical syn scan of 14 ports of 1 address, with nmap"},
		{Time: at(2), Type: view.TypeEnd, Source: "2001:db8:7::/64", Text: "expired after 1h"},
	}
}

func sampleSources() view.SourceList {
	one := func(a string, last time.Duration, probes uint64) view.Source {
		return view.Source{Address: netip.MustParseAddr(a), First: now.Add(-time.Hour), Last: now.Add(-last), Probes: probes, Ports: 14, Kinds: []string{"syn", "udp"}, Evidence: "E1"}
	}
	list := view.SourceList{Sources: []view.Source{
		one("203.0.113.9", time.Second, 61204), one(long, 8*time.Second, 1), one("198.51.100.7", time.Minute, 41), one("198.51.100.70", time.Hour, 9),
	}}
	list.Sources[0].Name, list.Sources[0].Bans, list.Sources[0].Tool = "scan\x1b[31m.example.net", 2, "nmap"
	list.Sources[2].Evidence = "E3"
	return list
}

func sampleBans() []view.Ban {
	ban := func(p string, since time.Duration) view.Ban {
		until := now.Add(time.Hour - since)
		return view.Ban{Prefix: netip.MustParsePrefix(p), Scope: "all", Strength: "full", Evidence: "E2", Since: now.Add(-since), Until: &until, Times: 1, Reason: "syn to trap port 1, unverified", Methods: []string{"nftables"}}
	}
	dropped := uint64(12345)
	bans := []view.Ban{ban("203.0.113.9/32", 19*time.Minute), ban(long+"/128", 5*time.Minute), ban("198.51.100.0/24", time.Hour)}
	bans[0].Dropped, bans[2].Until, bans[2].Reason = &dropped, nil, "ticket 4711"
	return bans
}

// sample is a model that has seen something, on a terminal of that size.
func sample(t *testing.T, width, height int) (*model, *fake) {
	t.Helper()
	c := new(fake)
	m := newModel(t.Context(), c, func() tea.Msg { return nil }, now)
	st := sampleStatus()
	m.tookStatus(&st)
	for i := range 70 { // a rate that goes up and down
		m.now = now.Add(time.Duration(i-70) * time.Second)
		st.Counters[0].Value += uint64(i % 20)
		st.Counters[1].Value += 512
		m.answered(&answer{of: askStatus, began: m.now, ended: m.now, status: st})
	}
	for i := range 10 {
		list := sampleSources()
		list.Sources[0].Probes -= uint64(10-i-1) * 7
		m.answered(&answer{of: askSources, began: now, ended: now.Add(time.Duration(i-10) * time.Second), sources: list})
	}
	m.answered(&answer{of: askReport, ended: now, report: view.Report{
		Sources: 4, Probes: 61255, Begun: 3, Ended: 1, TopPorts: []view.Tally{{What: "23/tcp", Count: 4711}, {What: "7/udp", Count: 5}, {What: "others", Count: 9}},
	}})
	m.answered(&answer{of: askBans, ended: now, bans: sampleBans(), more: true})
	for a := range m.asking {
		m.asking[a].ended = now.Add(time.Hour)
	}
	m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	m.Update(beat{at: now.Add(2 * time.Second), events: sampleEvents(), lost: 9210})
	return m, c
}

// press types keys, by their names, and runs what they begin.
func press(t *testing.T, m *model, keys ...string) {
	t.Helper()
	for _, k := range keys {
		named := map[string]tea.KeyPressMsg{
			"enter": {Code: tea.KeyEnter}, "esc": {Code: tea.KeyEscape}, "tab": {Code: tea.KeyTab}, "up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown},
			"backspace": {Code: tea.KeyBackspace}, "end": {Code: tea.KeyEnd}, "pgdown": {Code: tea.KeyPgDown},
		}
		msg, ok := named[k]
		if !ok {
			msg = tea.KeyPressMsg{Code: []rune(k)[0], Text: k}
		}
		_, cmd := m.Update(msg)
		if cmd != nil {
			m.Update(cmd())
		}
	}
}

// words are keys for a text.
func words(s string) []string { return strings.Split(s, "") }

// Every pane, at three sizes. What is drawn fits, and has nothing in it that a terminal
// would take for more than text.
func TestScreens(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 50}} {
		for _, c := range []struct {
			name string
			keys []string
			do   func(m *model)
		}{
			{name: "events"},
			{name: "sources", keys: []string{"2", "down"}},
			{name: "ports", keys: []string{"3"}},
			{name: "bans", keys: []string{"4", "end"}},
			{name: "why", keys: []string{"2", "enter", "down", "down"}},
			{name: "help", keys: []string{"?"}},
			{name: "unban", keys: []string{"4", "down", "u"}},
			{name: "ban", keys: append([]string{"2", "b"}, words("1d")...)},
			{name: "filter", keys: append(append([]string{"2", "/"}, words("198.51.100.7")...), "enter")},
			{name: "trouble", do: func(m *model) {
				m.status.Problems = []string{"the firewall table cannot be read: \x1b[31mpermission denied"}
				for i := range 4 {
					m.status.Counters = append(m.status.Counters, view.Counter{Help: fmt.Sprintf("lost things of kind %d because there was no room for them", i), Value: 4321, Loss: true})
				}
			}},
			{name: "gone", do: func(m *model) {
				m.answered(&answer{of: askStatus, ended: m.now, err: errors.New("portsentry is not running (nobody listens at /run/portsentry/portsentry.sock); start it with: sudo portsentry")})
				m.tick(&beat{at: now.Add(12 * time.Second)})
			}},
		} {
			name := fmt.Sprintf("%s-%dx%d", c.name, size[0], size[1])
			t.Run(name, func(t *testing.T) {
				m, _ := sample(t, size[0], size[1])
				press(t, m, c.keys...)
				if c.do != nil {
					c.do(m)
					m.dirty = true
					m.draw()
				}
				fits(t, m)
				golden(t, name, m.screen)
			})
		}
	}
}

func fits(t *testing.T, m *model) {
	t.Helper()
	lines := strings.Split(m.screen, "\n")
	if len(lines) > m.height {
		t.Errorf("%d lines of %d", len(lines), m.height)
	}
	for _, line := range lines {
		bare := regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(line, "")
		if n := length(bare); n > m.width {
			t.Errorf("%d columns of %d: %s", n, m.width, bare)
		}
		if clean := view.Printable(bare); clean != bare {
			t.Errorf("not for a terminal: %q", bare)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	var trimmed []string
	for line := range strings.SplitSeq(got, "\n") {
		trimmed = append(trimmed, strings.TrimRight(line, " "))
	}
	got = strings.Join(trimmed, "\n") + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// With colours, and the characters of a UTF-8 locale; and none of them with NO_COLOR.
func TestColours(t *testing.T) {
	m, _ := sample(t, 80, 24)
	if strings.Contains(m.screen, "\x1b") {
		t.Errorf("%q", m.screen)
	}
	m.colour, m.blocks = true, true
	press(t, m, "down")
	fits(t, m)
	golden(t, "colours-80x24", strings.ReplaceAll(m.screen, "\x1b", "ESC"))
	m.answered(&answer{of: askStatus, ended: m.now, err: errors.New("portsentry is not running")})
	m.tick(&beat{at: now.Add(12 * time.Second)})
	for i, line := range strings.Split(m.screen, "\n")[1:20] {
		if line != "" && !strings.HasPrefix(line, faint) && !strings.Contains(line, reverse) {
			t.Errorf("line %d of an old picture is not grey: %q", i+1, line)
		}
	}
}

// Whatever size a terminal takes on, the picture fits it, with every pane and question.
func TestEverySize(t *testing.T) {
	m, _ := sample(t, 80, 24)
	m.colour, m.blocks = true, true
	for width := 1; width < 220; width += 7 {
		for height := 1; height < 60; height += 5 {
			for _, keys := range [][]string{{"1"}, {"2"}, {"3"}, {"4"}, {"b"}, {"esc"}, {"u"}, {"n"}, {"/"}, {"esc"}, {"?"}, {"esc"}, {"2", "enter"}, {"esc"}} {
				m.Update(tea.WindowSizeMsg{Width: width, Height: height})
				press(t, m, keys...)
				fits(t, m)
			}
		}
	}
}
