package app

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// decider is the other end of the queue: sighting, verdict, answer, record. One
// goroutine does it for all workers, so that a source is judged by one mind.
type decider struct {
	queue *queue
	last  chan struct{}        // closed when no more packets come in
	ended chan struct{}        // closed when run has returned
	hits  chan detect.Sighting // the kernel's own reports of provisional bans
	do    chan func()          // changes that the decider makes between two decisions

	judge     *judge.Judge
	responder *respond.Responder
	record    *recorder
	revoke    func(context.Context, netip.Addr) // takes a provisional ban back
	freshen   func()                            // makes sure that connections opened until now are known
	answers   bool                              // somebody may be answered, so connections matter
	ask       func() bool                       // has the names asked who may be meant by the ignore file; whether answers are awaited
	settled   chan struct{}                     // says that those have been taken in
	seen      sightings
	flood     flood

	held  []held // of this batch
	fresh bool   // connections have been asked for in this batch

	waiting []doubt
	overdue *time.Timer // for them
	certain bool        // what is decided waits no more

	martians  atomic.Uint64 // sightings from addresses that no host sends from
	spared    atomic.Uint64
	dropped   atomic.Uint64 // sightings that ran into our own ban
	confirmed atomic.Uint64 // provisional bans confirmed
	revoked   atomic.Uint64
	hitsLost  atomic.Uint64 // kernel reports for which there was no room
	doubted   atomic.Uint64 // sightings that waited for the names in the ignore file
}

// batch is how many sightings are judged before their bans are put into force
// together. A flood of new sources costs one transaction and one wake-up for
// many of them; a single one waits for nobody.
const batch = 256

// held is a record whose ban is not in force yet.
type held struct {
	rec      store.Record
	deferred bool // it is recorded when the owner's steps have ended
}

// run decides until nothing more comes in and the queue is empty. The context
// bounds only what it asks of others: what is in the queue is decided even while
// stopping.
func (d *decider) run(ctx context.Context) error {
	defer close(d.ended)
	flush := time.NewTimer(time.Hour)
	defer flush.Stop()
	defer d.record.flush()
	due, flushed := false, time.Time{}
	d.flood.rest = time.NewTimer(time.Hour)
	defer d.flood.rest.Stop()
	d.overdue = time.NewTimer(time.Hour)
	defer d.overdue.Stop()
	for {
		select {
		case change := <-d.do:
			change()
		case s := <-d.hits:
			d.hit(ctx, &s)
			d.goOn(ctx)
		case <-d.queue.ready:
			d.goOn(ctx)
		case <-d.last:
			for d.more(ctx) >= batch || len(d.hits) > 0 {
			}
			d.decideWaiting(ctx)
			return nil
		case <-d.settled:
			d.decideWaiting(ctx)
		case <-d.overdue.C:
			d.decideWaiting(ctx)
		case <-d.record.dirty:
			if due {
				break
			}
			if wait := flushEvery - time.Since(flushed); wait > 0 {
				flush.Reset(wait)
				due = true
				break
			}
			d.record.flush()
			flushed = time.Now()
		case <-d.flood.rest.C:
			d.flood.end()
		case <-flush.C:
			d.record.flush()
			due, flushed = false, time.Now()
		}
	}
}

// goOn judges what waits, and comes back for the rest: others have their turn between.
func (d *decider) goOn(ctx context.Context) {
	n := d.more(ctx)
	if n >= batch {
		touch(d.queue.ready)
	}
	d.flood.came(n)
}

// set makes a change, between two decisions.
func (d *decider) set(change func()) {
	select {
	case d.do <- change:
	case <-d.ended:
	}
}

// more judges what else is waiting, up to about a batch, and puts the bans of all of
// it into force. Reports of the kernel go first: somebody is banned while they wait. It
// says how much it was; with less than a batch the queue was empty.
func (d *decider) more(ctx context.Context) int {
	n := d.reported(ctx)
	for n < batch {
		b := d.queue.take()
		if b == nil {
			break
		}
		for i := range b.n {
			n += d.reported(ctx)
			d.sighting(ctx, &b.seen[i])
		}
		n += b.n
		d.queue.back(b)
	}
	d.commit(ctx)
	return n
}

// reported judges what the kernel has reported, up to a batch, and says how much.
func (d *decider) reported(ctx context.Context) int {
	n := 0
	for ; n < batch && len(d.hits) > 0; n++ {
		s := <-d.hits
		d.hit(ctx, &s)
	}
	return n
}

// commit puts the bans of what has been judged into force, and then records it.
func (d *decider) commit(ctx context.Context) {
	d.responder.Commit(ctx)
	for i := range d.held {
		h := &d.held[i]
		if h.rec.Outcome.Settle(); !h.deferred {
			d.record.scan(&h.rec)
		}
	}
	clear(d.held)
	d.held = d.held[:0]
	d.fresh = false
}

// sighting decides and answers one sighting of the capture.
func (d *decider) sighting(ctx context.Context, s *detect.Sighting) {
	d.seen.add(s)
	d.weigh(ctx, s)
}

func (d *decider) weigh(ctx context.Context, s *detect.Sighting) {
	scope := judge.TCPOnly
	if s.Proto == decode.ProtoUDP {
		scope = judge.UDPOnly
	}
	// Proof is news even of somebody who is banned already, until he is banned for
	// that.
	news, evidence := judge.Nothing, judge.E1
	switch {
	case s.Several:
		news, evidence = judge.Full, judge.E2
	case s.Verified:
		news, evidence = judge.Soft, judge.E2
	}
	if d.responder.Dropped(s.Src, news, evidence, scope, s.Time) {
		d.dropped.Add(1)
		return
	}
	rec := store.Record{Verdict: d.decide(s)}
	v := &rec.Verdict
	if d.doubts(s, false, v) {
		return
	}
	if s.Held {
		d.settle(ctx, v)
	}
	switch {
	case v.Spared == judge.Martian:
		d.martians.Add(1)
		return
	case v.Spared != judge.NotSpared:
		d.spared.Add(1)
	}
	if v.Strength == judge.Nothing {
		d.record.scan(&rec)
		return
	}
	d.answer(rec)
}

// answer carries out a verdict that permits something, and holds its record
// until the ban is in force: or until the owner's commands have ended, if
// nothing else stands by then.
func (d *decider) answer(rec store.Record) {
	o, deferred := d.responder.Answer(&rec.Verdict, false, func(o respond.Outcome) {
		if !o.Deferred {
			d.record.actions(rec.Verdict.Sighting.Src, o.Actions)
			if late := rec; o.Newly {
				late.Outcome = o
				d.record.blockedLate(&late)
			}
			return
		}
		whole := rec
		whole.Outcome = o
		d.record.scan(&whole)
	})
	h := held{rec: rec, deferred: deferred}
	h.rec.Outcome = o
	d.held = append(d.held, h)
}

// hit judges a provisional ban that the kernel reports: confirm it, or take it
// back. The sighting itself is recorded when the capture delivers it.
func (d *decider) hit(ctx context.Context, s *detect.Sighting) {
	v := d.decide(s)
	if d.doubts(s, true, &v) {
		return
	}
	if !d.settle(ctx, &v) {
		return
	}
	d.responder.Answer(&v, true, func(o respond.Outcome) {
		d.record.actions(v.Sighting.Src, o.Actions)
	})
}

// settle counts what becomes of a provisional ban, and takes it back where the
// verdict has none.
func (d *decider) settle(ctx context.Context, v *judge.Verdict) (confirmed bool) {
	if v.Strength == judge.Nothing {
		d.revoked.Add(1)
		d.revoke(ctx, v.Sighting.Src)
		return false
	}
	d.confirmed.Add(1)
	return true
}

// decide asks the judge, with the connections of this moment when a ban hangs
// on it.
func (d *decider) decide(s *detect.Sighting) judge.Verdict {
	if d.answers && s.Triggered && !d.fresh {
		d.freshen()
		d.fresh = true
	}
	return d.judge.Decide(s)
}

// blocks reports whether the configuration bans at all.
func blocks(c *config.Config) bool {
	return c.BlockTCP != config.BlockNone || c.BlockUDP != config.BlockNone
}
