package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	gather    = 200 * time.Millisecond // what comes together is written together
	rowsEvery = 2 * time.Second        // a row that goes on changing is written so often
	pauseMin  = time.Second            // before a disk that refused is tried again
	pauseMax  = time.Minute
	atOnce    = 512 // rows and events of one transaction
	atATime   = 8   // transactions of one turn, while there is more
	// turnsAsked is how many turns who asks waits for: more than rows wait, and what
	// other things come at once.
	turnsAsked = 4

	stalled = 5 * time.Second // so long a turn may take before that is a problem
)

// writer is what Run works with.
type writer struct {
	j     *Journal
	timer *time.Timer
	due   time.Time     // of timer; zero: it is not set
	pause time.Duration // 0: the disk takes what it is given
	retry time.Time     // when a file that could not be opened is tried again

	batch     batch
	written   time.Time // the rows
	tidied    time.Time // what is too old
	full      int64     // so many pages have to stay; 0: not known
	shrinking bool
}

// Run writes down what comes in, until ctx ends, and then what is left.
func (j *Journal) Run(ctx context.Context) error {
	w := &writer{j: j, timer: time.NewTimer(time.Hour)}
	defer w.timer.Stop()
	w.start(ctx)
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			for w.turn(last, true) {
			}
			return nil
		case o := <-j.moves:
			w.move(ctx, o)
		case err := <-j.broken:
			w.failed(ctx, err)
		case done := <-j.asked:
			for n := 0; n < turnsAsked && w.pause == 0 && w.turn(ctx, true); n++ {
			}
			close(done)
		case <-j.wake:
			if w.pause == 0 {
				w.again(gather)
			}
		case <-w.timer.C:
			w.due = time.Time{}
			w.turn(ctx, false)
		}
	}
}

// again has the writer come back after d, if it does not sooner.
func (w *writer) again(d time.Duration) {
	if t := time.Now().Add(d); w.due.IsZero() || t.Before(w.due) {
		w.due = t
		w.timer.Reset(d)
	}
}

// start goes on from what Open has opened, or begins a database.
func (w *writer) start(ctx context.Context) {
	j := w.j
	j.base.Lock()
	if j.write == nil && j.o.Path != "" {
		j.openFile()
	}
	if j.write == nil {
		j.openMemory()
	}
	empty := j.empty
	j.base.Unlock()
	w.ready(ctx, empty)
}

// ready is for a database that has just been opened. anew: it has to be told of the
// bans in force.
func (w *writer) ready(ctx context.Context, anew bool) {
	w.pause, w.full, w.tidied = 0, 0, time.Time{}
	err := w.expire(ctx)
	if err == nil && anew {
		err = w.copyStanding(ctx)
	}
	if err != nil {
		w.failed(ctx, err)
	}
	if w.wanted() {
		w.retry = time.Now().Add(pauseMax)
		w.again(pauseMax)
	}
}

// wanted reports whether there should be a file, and is none.
func (w *writer) wanted() bool {
	w.j.base.RLock()
	defer w.j.base.RUnlock()
	return w.j.o.Path != "" && !w.j.kept
}

// move changes to other options.
func (w *writer) move(ctx context.Context, o Options) {
	j := w.j
	j.base.RLock()
	same := o.Path == j.o.Path && (j.kept || o.Path == "")
	j.base.RUnlock()
	for !same && w.pause == 0 && w.turn(ctx, true) { // what belongs into the old one
	}
	j.base.Lock()
	j.o.Path, j.o.Keep, j.o.Size = o.Path, o.Keep, o.Size
	j.base.Unlock()
	if same {
		w.tidied, w.full = time.Time{}, 0
		w.again(gather)
		return
	}
	j.say(keyDamaged, "")
	j.say(keyKept, "")
	w.reopen(ctx, nil)
}

// reopen opens the file in place of what is open, or begins a database in memory.
// damage: the file is set aside before.
func (w *writer) reopen(ctx context.Context, damage error) {
	j := w.j
	j.base.Lock()
	select {
	case <-j.broken: // of the file that is closed now: who found it held base
	default:
	}
	if err := j.close(); damage != nil && err == nil && j.o.Path != "" {
		damage = j.setAside(damage)
	}
	switch {
	case j.o.Path == "":
	case damage != nil:
		j.sayMemory(damage)
	default:
		j.openFile()
	}
	if j.write == nil {
		j.openMemory()
	}
	j.base.Unlock()
	w.ready(ctx, true)
}

// turn writes what there is, a bounded part of it, and reports whether there is more.
// all: also rows that were written a moment ago.
func (w *writer) turn(ctx context.Context, all bool) (more bool) {
	defer w.watch()()
	if w.moved() || w.wanted() && time.Now().After(w.retry) {
		w.reopen(ctx, nil)
	}
	rows := all || time.Since(w.written) >= rowsEvery
	if rows {
		w.written = time.Now()
	}
	more = true
	for n := 0; n < atATime && more; n++ {
		var err error
		if more, err = w.transact(ctx, rows); err != nil {
			if ctx.Err() == nil {
				w.failed(ctx, err)
			}
			return false
		}
	}
	if w.pause > 0 {
		w.pause = 0
		w.j.say(keyKept, "")
	}
	tidying, err := w.tidy(ctx)
	switch {
	case err != nil && ctx.Err() == nil:
		w.failed(ctx, err)
	case more || tidying:
		w.again(gather)
	case !rows && w.j.Stats().Waiting > 0:
		w.again(rowsEvery)
	}
	return more
}

// watch has it said when it takes too long until done is called: a disk that stalls
// gives no error.
func (w *writer) watch() (done func()) {
	said := make(chan struct{})
	late := time.AfterFunc(stalled, func() {
		w.j.say(keyStalled, fmt.Sprintf("the disk has not taken what the database has to write for %v: what happens is kept in memory, as far as there is room", stalled))
		close(said)
	})
	return func() {
		if !late.Stop() {
			<-said
			w.j.say(keyStalled, "")
		}
	}
}

// moved reports whether the file is another one by now, or none: what is written into
// one without a name is lost.
func (w *writer) moved() bool {
	j := w.j
	j.base.RLock()
	defer j.base.RUnlock()
	if !j.kept {
		return false
	}
	now, err := nodeOf(j.o.Path)
	return errors.Is(err, os.ErrNotExist) || err == nil && now != j.node
}

// failed goes on in memory after an error of the disk. A file that is damaged is set
// aside.
func (w *writer) failed(ctx context.Context, err error) {
	j := w.j
	j.mu.Lock()
	j.stats.Failed++
	j.mu.Unlock()
	if aside(err) {
		w.reopen(ctx, err)
		return
	}
	w.pause = min(max(2*w.pause, pauseMin), pauseMax)
	j.say(keyKept, fmt.Sprintf("what happens is kept in memory, as far as there is room, until the database can be written again: %v", err))
	w.again(w.pause)
}
