package app

import (
	"context"
	"fmt"
	"time"

	"portsentry/internal/config"
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
	err := d.journal.Past(ctx, respond.MaxPast, func(b *respond.Ban, ended time.Time) { d.responder.Remember(b, ended) })
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

// journalCounters adds what the database counts.
func (d *daemon) journalCounters(count, loss func(string, string, uint64)) {
	j := d.journal.Stats()
	count("database_bytes", "bytes that the database takes", uint64(j.Bytes))
	count("database_rows_total", "rows written to the database", j.Written)
	count("database_together_total", "sightings counted without their sources in the database: too many in ten minutes", j.Together)
	loss("database_failed_total", "times that the database could not be written", j.Failed)
	loss("database_lost_total", "beginnings and ends of bans that the database lacks", j.Lost)
}
