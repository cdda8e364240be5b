package app

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"portsentry/internal/store"
	"portsentry/internal/view"
)

// Of a report.
const (
	reportRows = 10 // of a ranking
	reportBans = 20 // the latest
	reportTime = 24 * time.Hour
)

// Report is for control.Past.
func (d *daemon) Report(ctx context.Context, since, until time.Time) (view.Report, error) {
	done, err := d.ask()
	if err != nil {
		return view.Report{}, err
	}
	defer done()
	if until.IsZero() {
		until = time.Now()
	}
	if since.IsZero() {
		since = until.Add(-reportTime)
	}
	r := view.Report{Version: d.o.Build.Version, Since: since, Until: until, Bans: []view.PastBan{}, TopSources: []view.Source{}}
	if r.Host, err = os.Hostname(); err != nil {
		r.Host = "this host"
	}
	if err := d.sum(ctx, &r); err != nil {
		return view.Report{}, err
	}
	if d.sensor.Load() != nil {
		r.Answered = d.record.learned.tally(since, until)
	}
	return r, nil
}

// sum fills in what is known of the time of r.
func (d *daemon) sum(ctx context.Context, r *view.Report) error {
	s, err := d.journal.Sums(ctx, r.Since, r.Until)
	if err != nil {
		return err
	}
	r.Sources, r.Probes, r.Triggered, r.Together = s.Sources, s.Probes, s.Triggered, s.Together
	r.Begun, r.Ended, r.Stand = s.Begun, s.Ended, s.Standing
	s.Ports, s.Top = s.Ports[:min(len(s.Ports), reportRows)], s.Top[:min(len(s.Top), reportRows)]
	r.TopPorts, r.Kinds, r.Endings = make([]view.Tally, len(s.Ports)), make([]view.Tally, len(s.Kinds)), make([]view.Tally, len(s.Endings))
	for i, t := range s.Ports {
		r.TopPorts[i] = view.Tally{What: fmt.Sprintf("%d/%s", t.Port, view.Proto(t.Proto)), Count: t.Count}
		if t.Port == 0 {
			r.TopPorts[i].What = "others"
		}
	}
	for i, t := range s.Kinds {
		r.Kinds[i] = view.Tally{What: t.Kind.String(), Count: t.Count}
	}
	for i, t := range s.Endings {
		r.Endings[i] = view.Tally{What: t.Ending.String(), Count: t.Count}
	}
	for _, t := range s.Top {
		rows, _, err := d.journal.Sources(ctx, store.Filter{Source: netip.PrefixFrom(t.Addr, t.Addr.BitLen()), Limit: 1})
		if err != nil {
			return err
		}
		one := view.Source{Address: t.Addr, First: r.Since, Last: r.Until, Kinds: []string{}}
		if len(rows) > 0 {
			one = d.source(&rows[0])
		}
		one.Probes = t.Count
		r.TopSources = append(r.TopSources, one)
	}
	lives, _, err := d.journal.Lives(ctx, store.Filter{Since: r.Since, Until: r.Until, Limit: reportBans})
	for i := range lives {
		r.Bans = append(r.Bans, pastRow(&lives[i]))
	}
	return err
}
