package app

import (
	"context"
	"fmt"
	"time"

	"portsentry/internal/view"
)

// decideTime is how long the decider may be busy before something is wrong.
const decideTime = 2 * time.Second

// Health is for control.Health and metrics.Source.
func (d *daemon) Health(ctx context.Context) (view.Health, error) {
	done, err := d.ask()
	if err != nil {
		return view.Health{}, err
	}
	defer done()
	d.lookAtLog()
	return d.health(ctx), nil
}

func (d *daemon) health(ctx context.Context) view.Health {
	h := view.Health{Problems: d.problems.list()}
	if !d.decides(ctx) {
		h.Problems = append(h.Problems, fmt.Sprintf("decisions are held up: nothing has been decided for %v", decideTime))
	}
	var checked time.Time
	if h.Bans, h.Enforced, checked = d.enforced(); !checked.IsZero() {
		h.Checked = &checked
	}
	h.OK = len(h.Problems) == 0
	if h.Problems == nil {
		h.Problems = []string{}
	}
	return h
}

// decides reports whether the decider gets to what it is asked.
func (d *daemon) decides(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, decideTime)
	defer cancel()
	select {
	case d.decider.do <- func() {}:
		return true
	case <-d.decider.ended: // we are stopping
		return true
	case <-ctx.Done():
		return false
	}
}

// beat says that we are well as often as the service manager asks for it, while
// decisions are made: a daemon that hangs is started again.
func (d *daemon) beat(every time.Duration, well func()) func(context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				if d.decides(ctx) {
					well()
				}
			}
		}
	}
}
