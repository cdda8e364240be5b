package app

import (
	"context"
	"sync"

	"portsentry/internal/respond"
	"portsentry/internal/respond/command"
)

// runner hands the owner's steps to the helper. When the helper has ended,
// detection and native bans go on: every order then fails with the reason, so
// that each is said to have failed and no ban waits for its undoing.
type runner struct {
	client *command.Client
	orphan chan order // orders that no helper will carry out

	mu   sync.Mutex
	gone error // why there is no helper any more
}

type order struct {
	respond.Order
	done func([]respond.Action)
}

// orphans is how many orders may wait to be told that there is no helper.
const orphans = 1024

func newRunner(c *command.Client) *runner {
	return &runner{client: c, orphan: make(chan order, orphans)}
}

// Submit is for respond.Runner.
func (r *runner) Submit(o respond.Order, done func([]respond.Action)) bool {
	if r.client.Submit(o, done) {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone == nil {
		return false
	}
	select {
	case r.orphan <- order{o, done}:
		return true
	default:
		return false
	}
}

// Busy is for respond.Runner.
func (r *runner) Busy() bool { return r.client.Busy() }

// run carries out orders until ctx ends. ended is told when the helper ends
// before that.
func (r *runner) run(ctx context.Context, ended func(error)) error {
	why := r.client.Run(ctx)
	if why == nil {
		return nil
	}
	r.mu.Lock()
	r.gone = why
	r.mu.Unlock()
	ended(why)
	for {
		select {
		case o := <-r.orphan:
			o.fail(why)
		case <-ctx.Done():
			for {
				select {
				case o := <-r.orphan:
					o.fail(why)
				default:
					return nil
				}
			}
		}
	}
}

func (o *order) fail(why error) {
	actions := make([]respond.Action, len(o.Steps))
	for i, s := range o.Steps {
		actions[i] = respond.Action{Step: s, Host: o.Host, Err: why}
	}
	o.done(actions)
}

// ended reports whether the helper ended before it was asked to.
func (r *runner) ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone != nil
}
