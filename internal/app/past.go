package app

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/view"
)

// journal is what is asked of the store about the past. Each list is bounded: more says
// that there are older rows.
type journal interface {
	Events(ctx context.Context, f store.Filter) (rows []store.Interval, more bool, err error)
	Lives(ctx context.Context, f store.Filter) (rows []store.Life, more bool, err error)
	Sources(ctx context.Context, f store.Filter) (rows []store.Source, more bool, err error)
	Changes(ctx context.Context, f store.Filter) (rows []store.Change, more bool, err error)
	Sums(ctx context.Context, since, until time.Time) (store.Sums, error)
	Recent(a netip.Addr) []store.Packet
}

// maxRows is how many rows of the past are answered at once.
const maxRows = 10000

// Events is for control.Past.
func (d *daemon) Events(ctx context.Context, f view.PastFilter) (view.EventList, error) {
	done, err := d.ask()
	if err != nil {
		return view.EventList{}, err
	}
	defer done()
	return pastEvents(ctx, d.journal, f)
}

// Follow is for control.Past. It does not keep the daemon from stopping.
func (d *daemon) Follow(ctx context.Context, f view.PastFilter, send func([]view.Event) error) error {
	who, err := d.feed.follow(f)
	if err != nil {
		return err
	}
	defer d.feed.leave(who)
	var before []view.Event
	if !f.Since.IsZero() || f.Limit > 0 {
		f.Until = time.Now()
		list, err := d.Events(ctx, f)
		if err != nil {
			return err
		}
		before = list.Events
		slices.Reverse(before)
	}
	for err := send(before); ; err = send(d.feed.take(who)) {
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.stopping:
			return nil
		case <-who.wake:
		}
	}
}

// Sources is for control.Past.
func (d *daemon) Sources(ctx context.Context, f view.PastFilter) (view.SourceList, error) {
	done, err := d.ask()
	if err != nil {
		return view.SourceList{}, err
	}
	defer done()
	rows, more, err := d.journal.Sources(ctx, asked(f))
	list := view.SourceList{Sources: make([]view.Source, len(rows)), More: more}
	for i := range rows {
		list.Sources[i] = d.source(&rows[i])
	}
	return list, err
}

// source is s as people see it.
func (d *daemon) source(s *store.Source) view.Source {
	_, banned := d.responder.Find(s.Addr)
	out := sourceRow(s)
	out.Banned = banned
	return out
}

func sourceRow(s *store.Source) view.Source {
	out := view.Source{
		Address: s.Addr, Name: store.HostName(s.Name), First: s.First, Last: s.Last, Probes: s.Probes, Ports: s.Ports,
		Kinds: []string{}, Evidence: s.Evidence.String(), Bans: s.Bans, Tool: s.Tool, Campaign: campaign(s.Campaign),
	}
	for _, k := range s.Kinds {
		out.Kinds = append(out.Kinds, k.String())
	}
	return out
}

// asked is f as the store wants it.
func asked(f view.PastFilter) store.Filter {
	limit := f.Limit
	if limit == 0 || limit > maxRows {
		limit = maxRows
	}
	return store.Filter{Since: f.Since, Until: f.Until, Source: f.Source, Kind: detect.ParseKind(f.Kind), Limit: limit}
}

// pastEvents gathers what f asks for out of all that is kept, newest first.
func pastEvents(ctx context.Context, j journal, f view.PastFilter) (view.EventList, error) {
	list := view.EventList{Events: []view.Event{}}
	kept := asked(f)
	wants := func(kind string) bool {
		ofProbe := kept.Kind != detect.KindNone && (kind == view.TypeProbes || kind == view.TypeScan)
		return f.Kind == "" || f.Kind == kind || ofProbe
	}
	take := func(more bool, e view.Event) { list.Events, list.More = append(list.Events, e), list.More || more }
	if wants(view.TypeProbes) {
		rows, more, err := j.Events(ctx, kept)
		if err != nil {
			return list, err
		}
		for i := range rows {
			take(more, probesEvent(&rows[i]))
		}
	}
	if wants(view.TypeScan) {
		rows, more, err := j.Sources(ctx, kept)
		if err != nil {
			return list, err
		}
		for i := range rows {
			s := &rows[i]
			began := time.Unix(0, s.Scan.First)
			within := !began.Before(f.Since) && (f.Until.IsZero() || began.Before(f.Until))
			if s.Scan.Kind != detect.KindNone && within && (kept.Kind == detect.KindNone || kept.Kind == s.Scan.Kind) {
				take(more, scanEvent(s.Addr, &s.Scan, began))
			}
		}
	}
	for _, of := range []struct {
		kind string
		row  func(*store.Life) view.Event
	}{{view.TypeBan, beganEvent}, {view.TypeEnd, endedEvent}} {
		if !wants(of.kind) {
			continue
		}
		kept := kept
		kept.Ended = of.kind == view.TypeEnd
		rows, more, err := j.Lives(ctx, kept)
		if err != nil {
			return list, err
		}
		for i := range rows {
			take(more, of.row(&rows[i]))
		}
	}
	if wants(view.TypeChange) && !f.Source.IsValid() {
		rows, more, err := j.Changes(ctx, kept)
		if err != nil {
			return list, err
		}
		for i := range rows {
			take(more, changeEvent(&rows[i]))
		}
	}
	slices.SortStableFunc(list.Events, func(a, b view.Event) int { return latest(&b).Compare(latest(&a)) })
	if len(list.Events) > kept.Limit {
		list.Events, list.More = list.Events[:kept.Limit], true
	}
	return list, nil
}

// latest is when the last of e was.
func latest(e *view.Event) time.Time {
	if e.Last != nil {
		return *e.Last
	}
	return e.Time
}

// pastRow is a ban that began once.
func pastRow(l *store.Life) view.PastBan {
	out := view.PastBan{Ban: banRow(&respond.InForce{Ban: l.Ban, Host: l.Host}), By: l.By}
	if !l.Ended.IsZero() {
		ended := l.Ended
		out.Ended, out.Ending, out.EndedBy = &ended, l.End.Ending.String(), l.End.By
	}
	return out
}

// unverified reports whether b was made on evidence that anybody can forge.
func unverified(b *respond.Ban) bool { return b.Evidence < judge.E2 }
