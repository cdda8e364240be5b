package tui

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"portsentry/internal/view"
)

// Bounds of what is kept beside sources and bans.
const (
	maxEvents = 512
	maxPorts  = 4096
)

// source is one row of the sources, and how many packets a second come of it.
type source struct {
	view.Source
	rate float64
}

// numbered is an event with a number that no other has.
type numbered struct {
	view.Event
	number uint64
}

// port is a port of a protocol.
type port struct {
	number   uint16
	protocol string
}

// tally is what was seen of a port.
type tally struct {
	hour uint64 // packets of the last hour, of those that the report names
	here uint64 // and since we look
	from string // who sent the last
}

// meter makes a rate of a counter that is looked at about once a second.
type meter struct {
	count uint64
	at    time.Time
	rates []float64 // of the last minute, a second each, the latest last
}

// minute is how many rates a meter keeps.
const minute = 60

func (r *meter) take(count uint64, at time.Time) {
	past := at.Sub(r.at).Seconds()
	if !r.at.IsZero() && count >= r.count && past > 0 {
		rate := float64(count-r.count) / past
		for range min(minute, max(1, int(math.Round(past)))) {
			r.rates = append(r.rates, rate)
		}
		r.rates = slices.Delete(r.rates, 0, max(0, len(r.rates)-minute))
	}
	r.count, r.at = count, at
}

func (r *meter) now() float64 {
	if len(r.rates) == 0 {
		return 0
	}
	return r.rates[len(r.rates)-1]
}

// tookStatus takes in how things are, and makes rates of its counters.
func (m *model) tookStatus(st *view.Status) {
	at := cmp.Or(m.statusAt, m.now)
	var probes, dropped uint64
	for _, c := range st.Counters {
		switch c.Name {
		case "sightings_total", "probes_counted_total":
			probes += c.Value
		case "kernel_dropped_soft_total", "kernel_dropped_limited_total", "kernel_dropped_full_total":
			dropped += c.Value
		}
	}
	m.probes.take(probes, at)
	m.dropped.take(dropped, at)
	m.status = *st
}

// tookReport takes in the last hour.
func (m *model) tookReport(r *view.Report) {
	m.report = r
	for _, t := range m.ports {
		t.hour = 0
	}
	for _, t := range r.TopPorts {
		number, protocol, _ := strings.Cut(t.What, "/")
		if n, err := strconv.ParseUint(number, 10, 16); err == nil {
			m.portOf(uint16(n), protocol).hour = t.Count
		}
	}
}

// portOf is the tally of a port. Where there is no room the half of all ports that saw
// least is forgotten.
func (m *model) portOf(number uint16, protocol string) *tally {
	key := port{number, protocol}
	t := m.ports[key]
	if t == nil {
		if len(m.ports) >= maxPorts {
			for _, old := range m.sortedPorts()[maxPorts/2:] {
				delete(m.ports, old)
			}
		}
		t = new(tally)
		m.ports[key] = t
	}
	return t
}

// sortedPorts are the ports that were probed most first.
func (m *model) sortedPorts() []port {
	all := make([]port, 0, len(m.ports))
	for p, t := range m.ports {
		if t.hour+t.here > 0 {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b port) int {
		x, y := m.ports[a], m.ports[b]
		return cmp.Or(cmp.Compare(y.hour, x.hour), cmp.Compare(y.here, x.here), cmp.Compare(a.number, b.number), cmp.Compare(a.protocol, b.protocol))
	})
	return all
}

// smooth is over which time the rate of a source is the mean, about.
const smooth = 10 * time.Second

// tookSources takes in who was seen since the last answer, or all there are.
func (m *model) tookSources(list *view.SourceList, whole bool, at time.Time) {
	past := at.Sub(m.sourcesAt)
	first := m.sourcesAt.IsZero()
	m.sourcesAt = at
	fades := math.Exp(-past.Seconds() / smooth.Seconds())
	for _, s := range m.sources {
		s.rate *= fades
	}
	old := m.sources
	if whole {
		m.sources, m.moreSources = make(map[netip.Addr]*source, len(list.Sources)), list.More
	}
	for i := range list.Sources {
		row := &list.Sources[i]
		s := old[row.Address]
		if s == nil {
			s = &source{Source: *row}
			if !first && row.First.After(at.Add(-past-overlap)) {
				s.Probes = 0 // all of them are new
			}
		}
		if !first && past > 0 && row.Probes > s.Probes {
			s.rate += (1 - fades) * float64(row.Probes-s.Probes) / past.Seconds()
		}
		s.Source = *row
		m.sources[row.Address] = s
	}
	if over := len(m.sources) - maxRows; over > 0 {
		all := m.sortedSources(byLast)
		for _, s := range all[maxRows:] {
			delete(m.sources, s.Address)
		}
		m.moreSources = true
	}
}

// order is what sources are sorted by.
type order int

const (
	byRate order = iota
	byLast
	byProbes
	orders
)

var orderNames = [orders]string{"rate", "last seen", "packets"}

func (m *model) sortedSources(by order) []*source {
	all := make([]*source, 0, len(m.sources))
	for _, s := range m.sources {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *source) int {
		first := 0
		switch by {
		case byRate:
			first = cmp.Compare(math.Round(b.rate*10), math.Round(a.rate*10))
		case byProbes:
			first = cmp.Compare(b.Probes, a.Probes)
		}
		return cmp.Or(first, b.Last.Compare(a.Last), a.Address.Compare(b.Address))
	})
	return all
}

// happened takes in events.
func (m *model) happened(events []view.Event) {
	for i := range events {
		e := &events[i]
		number := uint64(1)
		if n := len(m.events); n > 0 {
			number = m.events[n-1].number + 1
		}
		m.events = append(m.events, numbered{*e, number})
		switch e.Type {
		case view.TypeProbes:
			if e.Port != 0 && e.Time.After(m.began) {
				t := m.portOf(e.Port, e.Protocol)
				t.here += e.Count
				t.from = e.Source
			}
		case view.TypeBan, view.TypeEnd:
			m.setBanned(e.Source, e.Type == view.TypeBan)
		}
	}
	m.events = slices.Delete(m.events, 0, max(0, len(m.events)-maxEvents))
}

// setBanned notes the beginning or the end of a ban of an address or prefix.
func (m *model) setBanned(who string, banned bool) {
	p, err := view.ParseTarget(who)
	switch {
	case err != nil:
	case p.IsSingleIP():
		if s := m.sources[p.Addr()]; s != nil {
			s.Banned = banned
		}
	default:
		for a, s := range m.sources {
			if p.Contains(a) {
				s.Banned = banned
			}
		}
	}
}

// filter is whose rows are shown: those of a range, or whose address begins so.
type filter struct {
	text  string
	under netip.Prefix // invalid: text is how the address begins
}

func newFilter(text string) filter {
	text = strings.TrimSpace(text)
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return filter{text: text}
	}
	return filter{text, p.Masked()}
}

// shows reports whether a row about who is shown.
func (f *filter) shows(who string) bool {
	if !f.under.IsValid() {
		return strings.HasPrefix(who, f.text)
	}
	p, err := view.ParseTarget(who)
	return err == nil && f.under.Overlaps(p)
}
