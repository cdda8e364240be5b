package respond

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"portsentry/internal/judge"
)

// Relax turns native bans of new connections of the addresses into limited ones, for
// what is left of their time: their owners turned out to hold a connection to a served
// port. A method that has no limited ban lifts it.
func (r *Responder) Relax(ctx context.Context, addrs []netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commit(ctx)
	now := time.Now()
	var errs []error
	var soft []*entry
	for _, a := range addrs {
		soft = soft[:0]
		r.book.around(a, func(e *entry) bool {
			if e.native(now) && e.strength == judge.Soft {
				soft = append(soft, e)
			}
			return false
		})
		for _, e := range soft {
			errs = append(errs, r.relax(ctx, e, now))
		}
	}
	r.nudge()
	return errors.Join(errs...)
}

func (r *Responder) relax(ctx context.Context, e *entry, now time.Time) error {
	relaxed := e.ban()
	relaxed.Strength = judge.Limited
	relaxed.Reason += "; limited since it has a connection to a served port"
	var keep []*method
	var failed error
	for _, m := range e.holders.methods {
		if !m.Takes(&relaxed) {
			e.own().leaving = append(e.leaving, m)
			continue
		}
		keep = append(keep, m)
		failed = errors.Join(failed, m.BanAll(ctx, []Ban{relaxed}))
	}
	r.book.hold(e, keep)
	if failed == nil && len(keep) > 0 {
		if r.book.replace(e, &relaxed); e.listed {
			r.began(e)
		}
	}
	r.leave(ctx, e, now)
	r.settle(e, now)
	return failed
}
