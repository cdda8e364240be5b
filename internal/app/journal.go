package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/config"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store/sqlite"
)

// openedJournal is the database, opened beside the rest of the start, with the bans that have
// to be in force.
type openedJournal struct {
	journal  *sqlite.Journal
	standing []respond.InForce
	err      error // some of them could not be read
}

// restoreRoom is how many times the room of a ban it takes to put one back: it is in the
// hands of several meanwhile, and there is no time to collect garbage.
const restoreRoom = 2

// mostPast is how many bans that have ended are told to the responder.
const mostPast = 1 << 16

// beginJournal opens the database: nothing else needs it before the bans of an earlier
// run are put back.
func (d *daemon) beginJournal(c *config.Config) {
	opened := make(chan openedJournal, 1)
	go func() {
		var b openedJournal
		o := journalOptions(c)
		o.Say = d.problems.set
		o.Standing = func() []respond.InForce { return d.responder.List() }
		b.journal = sqlite.Open(o)
		ctx, cancel := context.WithTimeout(context.Background(), restoreTime)
		defer cancel()
		b.standing, b.err = b.journal.Standing(ctx, func(bans int) { d.heap.follow(restoreRoom * bans) })
		opened <- b
	}()
	d.opening = opened
	d.onStop(func() error {
		if d.journal == nil { // the start went wrong before that
			d.journal = (<-opened).journal
		}
		return d.journal.Close()
	})
}

func journalOptions(c *config.Config) sqlite.Options {
	return sqlite.Options{Path: c.DatabaseFile, Keep: c.DatabaseKeep, Size: int64(c.DatabaseSize) << 20}
}

// openJournal waits for the database, and gives the bans that have to be in force.
func (d *daemon) openJournal() []respond.InForce {
	b := <-d.opening
	d.journal, d.record.journal = b.journal, b.journal
	if b.err != nil {
		d.problems.set("restore", fmt.Sprintf("some bans of an earlier run are forgotten: the database cannot be read: %v", b.err))
	}
	return b.standing
}

// runJournal writes down what happens from now on, and looks through the file once.
func (d *daemon) runJournal() {
	d.base.start("database", d.journal.Run)
	d.base.start("check of the database", func(ctx context.Context) error {
		d.journal.Check(ctx)
		return d.recallPast(ctx)
	})
}

// recallPast tells the responder of bans that have ended: who comes back is banned for
// longer.
func (d *daemon) recallPast(ctx context.Context) error {
	err := d.journal.Past(ctx, mostPast, func(b *respond.Ban, ended time.Time) { d.responder.Remember(b, ended) })
	if err != nil && ctx.Err() == nil {
		d.problems.set("recall", fmt.Sprintf("earlier bans are not taken into account: %v", err))
	}
	return nil
}

// setJournal has the journal follow a new configuration.
func (d *daemon) setJournal(old, next *config.Config) {
	if o := journalOptions(next); old.DatabaseFile != next.DatabaseFile || old.DatabaseKeep != next.DatabaseKeep || old.DatabaseSize != next.DatabaseSize {
		d.journal.Set(o)
	}
}

// writeTime bounds how long a person waits until what he has changed is written down.
const writeTime = time.Second

// writeDown waits until what has happened is written: then a crash does not undo it.
func (d *daemon) writeDown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	_ = d.journal.Flush(ctx) // that it cannot be written is said elsewhere
}

// recollect adds to the bans that the kernel holds what the database knows of them, and
// puts back those that it does not hold any more: it is another kernel, or somebody has
// emptied its tables. standing has the place in rows of each.
func (d *daemon) recollect(ctx context.Context, c *config.Config, kept, rows []respond.InForce, standing map[netip.Prefix]int) []respond.InForce {
	lost := kept[:0] // in its place: there may be half a million
	known := make(map[netip.Prefix]struct{}, len(rows))
	trust := d.trust()
	for i := range kept {
		k := &kept[i].Ban
		if inTime(k, d.started) {
			d.journal.Began(*k, kept[i].Host)
		}
		at, held := standing[k.Prefix]
		if !held {
			if !k.Until.IsZero() && trust.Within(k.Prefix) == judge.NotSpared {
				lost = append(lost, kept[i])
			}
			continue
		}
		known[k.Prefix] = struct{}{}
		d.recollectOne(&rows[at], &kept[i])
		if rows[at].Ban.Strength < min(k.Strength, judge.Soft) { // relaxed a moment before the crash; a route says soft of all that is harder
			d.journal.Began(rows[at].Ban, rows[at].Host)
		}
	}
	for i := range rows {
		if _, is := known[rows[i].Ban.Prefix]; !is { // a moment before the crash
			host := rows[i].Host
			if !host.IsValid() {
				host = rows[i].Ban.Prefix.Addr()
			}
			d.journal.Began(rows[i].Ban, host)
		}
	}
	back := d.enforceAgain(ctx, c, lost)
	for i := range back {
		standing[back[i].Ban.Prefix] = len(rows) + i
	}
	if len(rows) == 0 {
		return back
	}
	return append(rows, back...)
}

// inTime has a ban of an earlier run end after the rest of its time, whatever becomes of
// the clock from now on. One that has not begun yet was made under a clock that has gone
// back since: its time begins now, and that is reported.
func inTime(b *respond.Ban, now time.Time) (begins bool) {
	if b.Until.IsZero() {
		return false
	}
	left := b.Until.Sub(now)
	if begins = b.Since.After(now); begins {
		left = min(left, b.Until.Sub(b.Since))
		b.Since = now
	}
	b.Until = now.Add(left) // by the monotonic clock, which now has
	return begins
}

// recollectOne fills in what the kernel does not keep. It alone knows how hard the ban
// is by now, and when it ends.
func (d *daemon) recollectOne(row, kept *respond.InForce) {
	b, k := &row.Ban, &kept.Ban
	b.Since, b.Times, b.Evidence, b.Reason, b.By = k.Since, k.Times, k.Evidence, k.Reason, k.By
	b.Port, b.Proto, b.Kind = k.Port, k.Proto, k.Kind
	row.Host = kept.Host
	ends := func(name string) bool {
		return slices.ContainsFunc(d.outliving(), func(m existing) bool { return m.Name() == name && m.Ends() })
	}
	if !slices.ContainsFunc(row.Methods, ends) && !k.Until.IsZero() {
		b.Until = k.Until
	}
}

// enforceAgain puts bans into force once more, for the rest of their time, and gives those
// that a method holds.
func (d *daemon) enforceAgain(ctx context.Context, c *config.Config, lost []respond.InForce) []respond.InForce {
	if len(lost) == 0 {
		return nil
	}
	for _, m := range d.methods(c) {
		if m.Enforces() {
			d.hold(ctx, m, lost, func(*respond.InForce) bool { return true })
		}
	}
	back := slices.DeleteFunc(lost, func(row respond.InForce) bool { return len(row.Methods) == 0 })
	if len(back) > 0 {
		d.log.Notice(fmt.Sprintf("adminalert: %d bans that the kernel had forgotten are in force again, for the rest of their time", len(back)))
	}
	return back
}

// holdAtOnce is how many bans a method is given in one go: as many as each puts into force
// all or none.
const holdAtOnce = 4096

// hold has m hold those of rows that wanted says, as far as it takes them and has room.
func (d *daemon) hold(ctx context.Context, m respond.Method, rows []respond.InForce, wanted func(*respond.InForce) bool) {
	bans, at := make([]respond.Ban, 0, holdAtOnce), make([]int, 0, holdAtOnce)
	left, failed := 0, error(nil)
	put := func() {
		if failed == nil {
			failed = m.BanAll(ctx, bans)
		}
		if failed != nil {
			left += len(bans)
		} else {
			for _, i := range at {
				rows[i].Methods = append(rows[i].Methods, m.Name())
			}
		}
		bans, at = bans[:0], at[:0]
	}
	for i := range rows {
		if b := &rows[i].Ban; wanted(&rows[i]) && m.Takes(b) {
			if bans, at = append(bans, *b), append(at, i); len(bans) == holdAtOnce {
				put()
			}
		}
	}
	if len(bans) > 0 {
		put()
	}
	said := fmt.Sprintf("%d bans of an earlier run are not enforced by %s: %v", left, m.Name(), failed)
	switch others := len(d.methods(d.conf.Load())) > 1; {
	case failed == nil:
	case others && errors.Is(failed, bpf.ErrBansFull): // they are the others'
		d.log.Notice("adminalert: " + said)
	default:
		d.problems.set("restore", said)
	}
}

// journalCounters adds what the database counts.
func (d *daemon) journalCounters(count, loss func(string, string, uint64)) {
	j := d.journal.Stats()
	count("database_bytes", "bytes that the database takes", uint64(j.Bytes))
	count("database_rows_total", "rows written to the database", j.Written)
	count("database_together_total", "sightings counted without their sources in the database: too many in ten minutes", j.Together)
	loss("database_failed_total", "times that the database could not be written", j.Failed)
	loss("database_lost_total", "beginnings and ends of bans that the database lacks", j.Lost)
}
