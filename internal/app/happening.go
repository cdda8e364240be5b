package app

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/view"
)

// Events as people see them. The same words are sent to those who follow, and made of
// what the store has kept.

// place is what was probed, in words.
func place(dst netip.Addr, port uint16, proto uint8, ports uint32) string {
	where := dst.String()
	if !dst.IsValid() {
		where = "this host"
	}
	switch what := fmt.Sprintf("%d/%s", port, view.Proto(proto)); {
	case port == 0:
		return where
	case ports > 1:
		return fmt.Sprintf("ports %s and %d more of %s", what, ports-1, where)
	default:
		return fmt.Sprintf("port %s of %s", what, where)
	}
}

// probesEvent is how much was seen of one source and kind in one span.
func probesEvent(i *store.Interval) view.Event {
	e := view.Event{
		Time: i.First, Type: view.TypeProbes, Kind: i.Kind.String(), Protocol: view.Proto(i.Proto),
		Count: i.Count, Port: i.Port, Ports: i.Ports,
	}
	if i.Count > 1 {
		last := i.Last
		e.Last = &last
	}
	if !i.Source.IsValid() {
		e.Text = "many sources, for which there was no room of their own"
		return e
	}
	e.Source, e.Text = i.Source.String(), place(i.Dst, i.Port, i.Proto, i.Ports)
	if i.Triggered < i.Count {
		e.Text += fmt.Sprintf("; %d counted as a scan", i.Triggered)
	}
	return e
}

// sightingWords is one probe, with what came of it.
func sightingWords(e *view.Event, r *store.Record) {
	s := &r.Verdict.Sighting
	e.Time, e.Source, e.Protocol = time.Unix(0, s.Time), s.Src.WithZone("").String(), view.Proto(s.Proto)
	e.Count, e.Port, e.Ports = 1, s.DstPort, 1
	why := strings.TrimPrefix(r.Verdict.Reason, fmt.Sprintf("%s to trap port %d, ", s.Kind, s.DstPort))
	e.Text = place(s.Dst, s.DstPort, s.Proto, 1) + "; " + why
}

// scanEvent is what a source is found to do.
func scanEvent(src netip.Addr, f *detect.Found, at time.Time) view.Event {
	return view.Event{
		Time: at, Type: view.TypeScan, Source: src.WithZone("").String(), Kind: f.Kind.String(), Protocol: view.Proto(f.Proto),
		Count: uint64(f.Probes), Ports: f.Ports, Text: scanWords(f),
	}
}

// scanWords is a scan in words.
func scanWords(f *detect.Found) string {
	what := fmt.Sprintf("%s %s scan of ", f.Direction, f.Kind)
	if f.Ports > 1 {
		what += fmt.Sprintf("%d ports of ", f.Ports)
	}
	what += fmt.Sprintf("%d %s", f.Targets, plural(int(f.Targets), "address", "addresses"))
	if f.Tool != "" {
		what += ", with " + f.Tool
	}
	if f.Campaign != 0 {
		what += ", campaign " + campaign(f.Campaign)
	}
	return what
}

// campaign is its number as JSON has it.
func campaign(id uint64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", id)
}

func beganEvent(l *store.Life) view.Event {
	length := "until undone by hand"
	if !l.Until.IsZero() {
		length = "for " + short(l.Until.Sub(l.Since).Round(time.Second))
	}
	by := ""
	if l.By != "" {
		by = " by " + l.By
	}
	return view.Event{
		Time: l.Since, Type: view.TypeBan, Source: written(l.Prefix), Text: fmt.Sprintf("%s%s: %s", length, by, l.Reason),
	}
}

func endedEvent(l *store.Life) view.Event {
	text := fmt.Sprintf("%s after %s", l.End.Ending, short(l.Ended.Sub(l.Since).Round(time.Second)))
	if l.End.By != "" {
		text = fmt.Sprintf("%s by %s after %s", l.End.Ending, l.End.By, short(l.Ended.Sub(l.Since).Round(time.Second)))
	}
	return view.Event{Time: l.Ended, Type: view.TypeEnd, Source: written(l.Prefix), Text: text}
}

func changeEvent(c *store.Change) view.Event {
	e := view.Event{Time: c.Time, Type: view.TypeChange, Text: c.Text}
	if c.By != "" {
		e.Text += ", by " + c.By
	}
	return e
}

// sighting tells those who follow of one probe, and of the scan that was found by it.
func (f *feed) sighting(r *store.Record) {
	if !f.wanted() {
		return
	}
	s := &r.Verdict.Sighting
	src := netip.PrefixFrom(s.Src.WithZone(""), s.Src.BitLen())
	e := view.Event{Type: view.TypeProbes, Kind: s.Kind.String()}
	f.tell(&e, src, func(e *view.Event) { sightingWords(e, r) })
	if s.Scan.Kind != detect.KindNone && r.Verdict.Spared == judge.NotSpared {
		e = scanEvent(s.Src, &s.Scan, time.Unix(0, s.Time))
		f.publish(&e, src)
	}
}

// began tells those who follow of a ban.
func (f *feed) began(b *respond.Ban) {
	if f.wanted() {
		e := beganEvent(&store.Life{Ban: *b})
		f.publish(&e, b.Prefix)
	}
}

// ended tells those who follow of the end of a ban.
func (f *feed) ended(b *respond.Ban, end respond.End) {
	if f.wanted() {
		e := endedEvent(&store.Life{Ban: *b, Ended: time.Now(), End: end})
		f.publish(&e, b.Prefix)
	}
}

// changed tells those who follow of a change that somebody made.
func (f *feed) changed(by, text string) {
	if f.wanted() {
		e := changeEvent(&store.Change{Time: time.Now(), By: by, Text: text})
		f.publish(&e, netip.Prefix{})
	}
}
