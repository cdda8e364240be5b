package app

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"portsentry/internal/view"
)

// maxUnconfirmed bounds how many changes wait to be confirmed.
const maxUnconfirmed = 64

// unconfirmed are the changes that are taken back unless somebody confirms them in
// time: who has locked himself out cannot. Safe for concurrent use.
type unconfirmed struct {
	mu      sync.Mutex
	last    uint64
	waits   map[uint64]*waiting
	ended   bool           // nothing is taken in any more
	working sync.WaitGroup // what is being taken back
}

// waiting is one of them. Once it is taken out of unconfirmed, exactly one of stand
// and back is called.
type waiting struct {
	view.Pending
	stand func() error
	back  func(stopping bool) // stopping: the daemon ends
	timer *time.Timer
	old   *reloaded // of a reload
}

// add takes in a change that has been made, to be taken back at w.Confirm.
func (u *unconfirmed) add(w *waiting) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.room(); err != nil {
		return err
	}
	if u.waits == nil {
		u.waits = make(map[uint64]*waiting)
	}
	u.last++
	number := u.last
	w.Number = number
	u.waits[number] = w
	w.timer = time.AfterFunc(time.Until(w.Confirm), func() { u.expire(number) })
	return nil
}

// hasRoom says why no change can be taken in now.
func (u *unconfirmed) hasRoom() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.room()
}

func (u *unconfirmed) room() error {
	switch {
	case u.ended:
		return errStopping
	case len(u.waits) >= maxUnconfirmed:
		return view.Refuse(http.StatusTooManyRequests, fmt.Sprintf("%d changes wait to be confirmed, and there is no room for more", maxUnconfirmed),
			"portsentry pending lists them")
	}
	return nil
}

// expire takes back what nobody has confirmed.
func (u *unconfirmed) expire(number uint64) {
	u.mu.Lock()
	w := u.waits[number]
	delete(u.waits, number)
	if w == nil || u.ended {
		u.mu.Unlock()
		return
	}
	u.working.Add(1)
	u.mu.Unlock()
	defer u.working.Done()
	w.back(false)
}

// confirm lets a change stand. Root may confirm everybody's.
func (u *unconfirmed) confirm(who view.Caller, number uint64) (view.Pending, error) {
	u.mu.Lock()
	w := u.waits[number]
	switch {
	case w == nil:
		u.mu.Unlock()
		return view.Pending{}, view.Refuse(http.StatusGone, fmt.Sprintf("no change %d waits to be confirmed", number),
			"it has been confirmed, or taken back; portsentry pending lists those that wait")
	case !who.Root && who.UID != w.UID:
		u.mu.Unlock()
		return view.Pending{}, view.Refuse(http.StatusForbidden, fmt.Sprintf("change %d is not yours (uid %d)", number, w.UID), "whoever made a change confirms it, or root does: try sudo")
	}
	delete(u.waits, number)
	w.timer.Stop()
	u.mu.Unlock()
	return w.Pending, w.stand()
}

// list gives what waits, the first to be taken back first.
func (u *unconfirmed) list() []view.Pending {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []view.Pending
	for _, w := range u.waits {
		out = append(out, w.Pending)
	}
	slices.SortFunc(out, func(a, b view.Pending) int {
		return cmp.Or(a.Confirm.Compare(b.Confirm), cmp.Compare(a.Number, b.Number))
	})
	return out
}

// reload takes out the reload that waits, if there is one: another one takes its
// place.
func (u *unconfirmed) reload() *waiting {
	u.mu.Lock()
	defer u.mu.Unlock()
	for number, w := range u.waits {
		if w.old != nil {
			delete(u.waits, number)
			w.timer.Stop()
			return w
		}
	}
	return nil
}

// end takes everything back, the latest first, and lets nothing wait any more.
func (u *unconfirmed) end() {
	u.mu.Lock()
	u.ended = true
	var left []*waiting
	for _, w := range u.waits {
		w.timer.Stop()
		left = append(left, w)
	}
	clear(u.waits)
	u.mu.Unlock()
	slices.SortFunc(left, func(a, b *waiting) int { return cmp.Compare(b.Number, a.Number) })
	for _, w := range left {
		w.back(true)
	}
	u.working.Wait()
}
