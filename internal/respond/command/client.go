package command

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/respond"
)

const (
	queueSize = 1024 // orders that wait
	// answerLimit is the longest the helper may be silent with steps under way:
	// more than the time limit of a command, with its end and a busy second.
	answerLimit = time.Minute
)

// Stats counts orders and steps. All but Waiting only grow.
type Stats struct {
	Submitted uint64 // orders taken
	Refused   uint64 // orders not taken: the queue was full, or there was no helper
	Failed    uint64 // steps that failed, timed out ones included
	TimedOut  uint64 // steps ended by the time limit
	Malformed uint64 // records that the helper refused to understand
	Waiting   int    // orders not begun
}

// Client is the daemon's side: it carries Orders to the helper. It implements
// respond.Runner.
type Client struct {
	conn    *net.UnixConn
	modes   config.Modes
	dialect config.Dialect

	mu      sync.Mutex
	waiting []*job
	busy    map[netip.Addr]bool // hosts with an order under way
	gone    error               // why no more orders are taken
	stats   Stats
	wake    chan struct{}

	reloads chan chan error
	ended   chan struct{} // closed when Run has returned
}

// job is one order under way.
type job struct {
	order   respond.Order
	done    func([]respond.Action)
	actions []respond.Action
}

// NewClient returns a Client that talks to the helper over conn; m and d are what
// $MODE$ tells. Orders wait until Run runs.
func NewClient(conn *net.UnixConn, m config.Modes, d config.Dialect) *Client {
	return &Client{conn: conn, modes: m, dialect: d, busy: make(map[netip.Addr]bool),
		wake: make(chan struct{}, 1), reloads: make(chan chan error), ended: make(chan struct{})}
}

// Submit takes an order, or reports false when 1,024 are waiting, the helper is
// gone, or the order asks for nothing. It never blocks. done is called from
// Run's goroutine and holds up the other orders while it runs. Orders about one
// host are carried out one after the other, in the order in which they came;
// others four at a time.
func (c *Client) Submit(o respond.Order, done func([]respond.Action)) bool {
	o.Host = o.Host.Unmap().WithZone("")
	o.Steps = slices.Clone(o.Steps)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone != nil || len(c.waiting) >= queueSize || len(o.Steps) == 0 {
		c.stats.Refused++
		return false
	}
	c.stats.Submitted++
	c.waiting = append(c.waiting, &job{order: o, done: done})
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return true
}

// SetModes changes what $MODE$ tells, for orders that begin from now on.
func (c *Client) SetModes(m config.Modes) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.modes = m
}

// Reload lets the helper read its configuration again. What it begins from then
// on is as the new one says; with an error the old one stays. Run must be
// running.
func (c *Client) Reload(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case c.reloads <- answer:
	case <-c.ended:
		return c.gone
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Busy reports that as many orders are under way as are carried out at once, or
// that some wait already.
func (c *Client) Busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)+len(c.busy) >= atOnce
}

// Stats returns the counters.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Waiting = len(c.waiting)
	return s
}

// Run carries out orders until ctx ends, which is no error, or until the helper
// is gone or silent for a minute, which is one. Either way the orders that are
// not done then fail, each with an error that says why, and no more are taken.
func (c *Client) Run(ctx context.Context) error {
	replies := make(chan reply)
	broken := make(chan error, 1)
	ended := make(chan struct{})
	defer c.conn.SetReadDeadline(time.Unix(1, 0)) // lets read end
	defer close(ended)
	go c.read(replies, broken, ended)

	defer close(c.ended)

	underway := make(map[uint64]*job)    // by the id of the step's request
	asked := make(map[uint64]chan error) // reloads, likewise
	defer func() {
		for _, answer := range asked {
			answer <- c.gone
		}
	}()
	var lastID uint64
	next := func(j *job) error {
		lastID++
		underway[lastID] = j
		return c.send(lastID, j)
	}
	for {
		var err error
		for err == nil && len(underway) < atOnce {
			j := c.take()
			if j == nil {
				break
			}
			err = next(j)
		}
		if err == nil {
			select {
			case <-ctx.Done():
				c.giveUp(underway, fmt.Errorf("portsentry is stopping: %w", context.Cause(ctx)))
				return nil
			case err = <-broken:
			case <-c.wake:
			case answer := <-c.reloads:
				lastID++
				asked[lastID] = answer
				err = c.sendReload(lastID)
			case r := <-replies:
				switch j, answer := underway[r.id], asked[r.id]; {
				case answer != nil:
					delete(asked, r.id)
					answer <- reloaded(&r)
				case j != nil:
					delete(underway, r.id)
					c.book(j, &r)
					if len(j.actions) < len(j.order.Steps) {
						err = next(j)
					} else {
						c.release(j)
					}
				default:
					err = fmt.Errorf("%w: reply to nothing that was asked", errRecord)
				}
				c.expectBy(len(underway) + len(asked))
			}
		}
		if err != nil {
			err = fmt.Errorf("%w (%w)", ErrHelperGone, err)
			c.giveUp(underway, err)
			return err
		}
	}
}

// take removes the first order about a host with none under way.
func (c *Client) take() *job {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, j := range c.waiting {
		if !c.busy[j.order.Host] {
			c.busy[j.order.Host] = true
			c.waiting = slices.Delete(c.waiting, i, i+1)
			return j
		}
	}
	return nil
}

// release ends j: its host is free for the next order.
func (c *Client) release(j *job) {
	c.mu.Lock()
	delete(c.busy, j.order.Host)
	c.mu.Unlock()
	j.done(j.actions)
}

// giveUp fails every step that is not done, and all orders to come.
func (c *Client) giveUp(underway map[uint64]*job, why error) {
	c.mu.Lock()
	c.gone = why
	left := c.waiting
	c.waiting = nil
	for _, j := range underway {
		left = append(left, j)
	}
	c.mu.Unlock()
	for _, j := range left {
		for len(j.actions) < len(j.order.Steps) {
			j.actions = append(j.actions, respond.Action{Step: j.order.Steps[len(j.actions)], Host: j.order.Host, Err: why})
			c.mu.Lock()
			c.stats.Failed++
			c.mu.Unlock()
		}
		j.done(j.actions)
	}
}
