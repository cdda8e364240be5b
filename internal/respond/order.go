package respond

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/judge"
)

// ErrNoMethod is for a ban that nothing here can enforce.
var ErrNoMethod = errors.New("no native method takes it; see BLOCK_METHOD")

// Order makes a ban that a person asked for: of everything, of any prefix, for as
// long as b.Until says, by the native methods that take it. It replaces a ban of
// the same prefix, and what it covers is banned already. b.By says who asked; without
// it b is a ban of ours that was lifted, and comes back as it was. host is whom the
// files list for it. Where only some of the methods fail it is in force all the same.
func (r *Responder) Order(ctx context.Context, b Ban, host netip.Addr) (InForce, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commit(ctx)
	now := time.Now()
	b.Prefix = b.Prefix.Masked()
	if b.By != "" {
		b.Strength, b.Scope, b.Evidence = judge.Full, judge.AllProtocols, judge.E0
		b.Since, b.Times = now, r.book.times(b.Prefix, false, now)
	}
	methods := slices.DeleteFunc(slices.Clone(r.methods), func(m *method) bool { return !m.Takes(&b) })
	if len(methods) == 0 {
		return InForce{}, fmt.Errorf("%v: %w", b.Prefix, ErrNoMethod)
	}
	if old := r.book.entries.of(b.Prefix); old == nil {
		if err := r.room(&b, nil, now); err != nil {
			return InForce{}, err
		}
	}
	actions := make([]Action, len(methods))
	e := r.put(&b, host, methods, actions)
	e.decided = now.UnixNano()
	r.commit(ctx)
	var errs []error
	for i, a := range actions {
		if a.Err == nil {
			return r.row(e, now), nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", methods[i].Name(), a.Err))
	}
	return InForce{}, errors.Join(errs...)
}

// Of is what the book has about exactly p: its ban, and steps that stand.
func (r *Responder) Of(p netip.Prefix) (InForce, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	e := r.book.entries.of(p.Masked())
	if e == nil || !e.native(now) && !r.book.blocks(e, now) {
		return InForce{}, false
	}
	return r.row(e, now), true
}

// Find is what keeps a out now: the strongest of its own ban and those of the networks
// it lies in, the narrowest of equals.
func (r *Responder) Find(a netip.Addr) (row InForce, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var strongest *entry
	r.book.around(a, func(e *entry) bool {
		if r.book.blocks(e, now) && (strongest == nil || e.strength > strongest.strength) {
			strongest = e
		}
		return false
	})
	if strongest == nil {
		return InForce{}, false
	}
	row = r.row(strongest, now)
	row.count(r.counters())
	return row, true
}
