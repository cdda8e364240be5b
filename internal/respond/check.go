package respond

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Checked is what a look at the methods came to.
type Checked struct {
	Bans    int // that methods hold which can be asked
	Lacking int // of them, those that a method does not keep to now: as many as the worst of them
	Missing int // that were not where they should have been, each as often as methods had lost it
	Remade  int // of those, made again
}

// soon is how much of its time has to be left to a ban that is looked for: it may end
// by itself meanwhile.
const soon = time.Second

// lookedFor bounds how many bans are looked for while nobody else gets a turn.
const lookedFor = 128

// passedBy bounds how much of the book is gone through for those of a method, where not
// all are asked for: as many as anybody can bring about.
const passedBy = MaxUnproved

// Check asks each Checker whether it still holds its bans, and has it make those again
// that somebody has taken out. Most says for how many of the bans of the method of a
// name, which are any of them. What becomes of those that are not looked at is not
// known, so they count as held.
func (r *Responder) Check(ctx context.Context, most func(name string) int) (Checked, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	checkers := slices.SortedFunc(maps.Values(r.known), func(a, b *method) int { return strings.Compare(a.Name(), b.Name()) })
	checkers = slices.DeleteFunc(checkers, func(m *method) bool {
		_, can := m.Method.(Checker)
		return !can || !m.Enforces()
	})
	var c Checked
	var errs []error
	held := make([]int, len(checkers))
	for _, h := range r.book.combinations {
		counted := false
		for i, m := range checkers {
			if slices.Contains(h.methods, m) {
				held[i] += h.entries
				counted = true
			}
		}
		if counted {
			c.Bans += h.entries
		}
	}
	for i, m := range checkers {
		if held[i] == 0 {
			continue
		}
		lacking, err := r.check(ctx, m, most(m.Name()), held[i], &c)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.Name(), err))
			if lacking < 0 {
				lacking = held[i]
			}
		}
		c.Lacking = max(c.Lacking, min(lacking, c.Bans))
	}
	return c, errors.Join(errs...)
}

// check does so with one method, which holds so many. lacking is how many bans it does not
// keep to: -1 where that is not known.
func (r *Responder) check(ctx context.Context, m *method, most, held int, c *Checked) (lacking int, err error) {
	var bans []Ban
	ask := func() {
		if err != nil || len(bans) == 0 {
			return
		}
		missing, failed := m.Method.(Checker).Holds(ctx, bans)
		if failed != nil {
			lacking, err = -1, failed
			return
		}
		again := make([]Ban, len(missing))
		for i, at := range missing {
			again[i] = bans[at]
		}
		bans = bans[:0]
		if len(again) == 0 {
			return
		}
		c.Missing += len(again)
		if failed := m.BanAll(ctx, again); failed != nil {
			lacking += len(again)
			err = failed
			return
		}
		c.Remade += len(again)
	}
	now := time.Now()
	looked, passed := 0, 0
	for e := range r.book.entries.all { // in an order that is another each time
		if looked == min(most, held) || err != nil || most < held && passed == passedBy {
			break
		}
		if passed++; passed%turn == 0 {
			ask()
			r.yield()
			now = time.Now()
		}
		if e.staging != nil || !e.native(now.Add(soon)) || !slices.Contains(e.holders.methods, m) {
			continue
		}
		looked++
		b := e.ban()
		if !m.Takes(&b) { // as when the rule that uses a set is gone
			lacking++
			continue
		}
		if bans = append(bans, b); len(bans) == lookedFor {
			ask()
			r.yield()
			now = time.Now()
		}
	}
	ask()
	return lacking, err
}
