package tui

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"portsentry/internal/view"
)

// row is one row of a pane: what it is known by while others come and go, whom it is
// about, and its cells, which are made when it is shown.
type row struct {
	key   string
	who   string // address or prefix; "": nobody
	cells func() []string
}

// rows are those of the pane, as they are shown.
func (m *model) rows() []row {
	var all []row
	add := func(key, who string, cells func() []string) {
		if m.filter.text == "" || m.filter.shows(who) {
			all = append(all, row{key, who, cells})
		}
	}
	switch m.pane {
	case paneEvents:
		for i := len(m.events) - 1; i >= 0; i-- {
			e := &m.events[i]
			add(strconv.FormatUint(e.number, 10), e.Source, func() []string { return m.eventCells(&e.Event) })
		}
	case paneSources:
		for _, s := range m.sortedSources(m.order) {
			who := s.Address.String()
			add(who, who, func() []string { return m.sourceCells(s) })
		}
	case panePorts:
		for _, p := range m.sortedPorts() {
			t := m.ports[p]
			what := fmt.Sprintf("%d/%s", p.number, view.Printable(p.protocol))
			add(what, t.from, func() []string { return []string{what, number(t.hour), number(t.here), view.Printable(t.from)} })
		}
	case paneBans:
		slices.SortFunc(m.bans, func(a, b view.Ban) int {
			return cmp.Or(b.Since.Compare(a.Since), a.Prefix.Compare(b.Prefix))
		})
		for i := range m.bans {
			b := &m.bans[i]
			who := view.Who(b.Prefix)
			add(who, who, func() []string { return m.banCells(b) })
		}
	}
	return all
}

// columns of the pane.
func (m *model) columns() []column {
	switch m.pane {
	case paneEvents:
		return []column{
			{title: "when", give: 2, least: 8}, {title: "what", give: 1, least: 6, paint: eventColour}, {title: "source", least: 15},
			{title: "which", give: 3, free: true},
		}
	case paneSources:
		return []column{
			{title: "who", least: 15}, {title: "a second", give: 2, right: true}, {title: "packets", give: 1, least: 9, right: true},
			{title: "seen", give: 3, least: 10}, {title: "ports", give: 5, least: 6, right: true},
			{title: "now", give: 4, least: 6, paint: func(string) string { return red }}, {title: "evidence", give: 7, least: 10},
			{title: "bans", give: 8, right: true}, {title: "with", give: 9}, {title: "kinds and name", give: 6, free: true},
		}
	case panePorts:
		return []column{
			{title: "port", least: 10}, {title: "last hour", give: 1, right: true}, {title: "since " + clock(m.began), right: true},
			{title: "latest from", give: 2},
		}
	}
	return []column{
		{title: "who", least: 15}, {title: "left", give: 1, least: 12}, {title: "times", give: 5, right: true},
		{title: "dropped", give: 3, least: 9, right: true}, {title: "since", give: 4, least: 10}, {title: "why", give: 2, free: true},
	}
}

func (m *model) eventCells(e *view.Event) []string {
	at, what := e.Time, e.Type
	if e.Last != nil {
		at = *e.Last
	}
	text := e.Text
	if e.Type == view.TypeProbes {
		what = e.Kind
		if e.Count > 1 {
			text = view.Grouped(e.Count) + " packets, " + text
		}
	}
	when := clock(at)
	if m.now.Sub(at) > 24*time.Hour {
		when = at.In(m.now.Location()).Format("2 Jan")
	}
	return []string{when, view.Printable(what), view.Printable(e.Source), view.Printable(text)}
}

// eventColour makes stand out what is more than a probe.
func eventColour(what string) string {
	switch what {
	case view.TypeScan:
		return yellow
	case view.TypeBan:
		return red
	case view.TypeEnd:
		return green
	case view.TypeChange:
		return bold
	}
	return ""
}

func (m *model) sourceCells(s *source) []string {
	state := ""
	if s.Banned {
		state = "banned"
	}
	class := view.Printable(s.Evidence)
	switch s.Evidence {
	case "E0":
		class = "noise"
	case "E1":
		class = "unverified"
	case "E2", "E3":
		class = "verified"
	}
	words := strings.Join(s.Kinds, ",")
	if s.Name != "" {
		words += "  " + s.Name
	}
	return []string{
		s.Address.String(), perSecond(s.rate), view.Grouped(s.Probes), view.Span(m.now.Sub(s.Last)) + " ago", view.Grouped(uint64(s.Ports)),
		state, class, number(uint64(max(0, s.Bans))), view.Printable(s.Tool), view.Printable(words),
	}
}

func (m *model) banCells(b *view.Ban) []string {
	left, dropped := "by hand only", ""
	if b.Until != nil {
		left = view.Span(b.Until.Sub(m.now))
	}
	if b.Dropped != nil {
		dropped = view.Grouped(*b.Dropped)
	}
	return []string{
		view.Who(b.Prefix), left, strconv.Itoa(b.Times), dropped, view.Span(m.now.Sub(b.Since)) + " ago", view.Printable(b.Reason),
	}
}

// about says what the rows of the pane are.
func (m *model) about(n int) string {
	said := view.Grouped(uint64(n)) + " "
	switch m.pane {
	case paneEvents:
		said += view.Plural(n, "event") + ", newest first"
		if m.lost > 0 {
			said += "; " + view.Grouped(m.lost) + " more came too fast"
		}
		if m.broken != "" {
			said = "no new events: " + m.broken
		}
	case paneSources:
		said += view.Plural(n, "source") + " by " + orderNames[m.order] + more(m.moreSources)
	case panePorts:
		said += view.Plural(n, "port") + ", most probed first"
	case paneBans:
		said += view.Plural(n, "ban") + ", newest first" + more(m.moreBans)
	}
	of := [panes]question{askStatus, askSources, askReport, askBans}[m.pane]
	if wrong := m.asking[of].wrong; wrong != "" && of != askStatus {
		said = wrong
	}
	if m.filter.text != "" {
		said = "only " + view.Printable(m.filter.text) + ": " + said
	}
	return said
}

func more(there bool) string {
	if there {
		return "; there are more"
	}
	return ""
}

// number is n, "" for none.
func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return view.Grouped(n)
}

// perSecond is a rate, "" for none.
func perSecond(rate float64) string {
	switch {
	case rate < 0.05:
		return ""
	case rate < 9.95:
		return strconv.FormatFloat(rate, 'f', 1, 64)
	}
	return view.Grouped(uint64(rate + 0.5))
}

func clock(t time.Time) string { return t.Local().Format(time.TimeOnly) }

// target is the prefix that a row is about.
func (r *row) target() (netip.Prefix, bool) {
	p, err := view.ParseTarget(r.who)
	return p, err == nil
}
