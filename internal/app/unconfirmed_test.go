package app

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/view"
)

// changes are what became of changes that wait, by name.
type fates []string

func (f *fates) waiting(name string, uid int, within time.Duration) *waiting {
	w := &waiting{Pending: view.Pending{Change: name, UID: uid, Since: time.Now(), Confirm: time.Now().Add(within)}}
	w.stand = func() error { *f = append(*f, name+" stands"); return nil }
	w.back = func(stopping bool) {
		if stopping {
			name += " at the stop"
		}
		*f = append(*f, name+" is taken back")
	}
	return w
}

func TestUnconfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u unconfirmed
		var got fates
		root, member, other := view.Caller{Root: true}, view.Caller{UID: 1000}, view.Caller{UID: 1001}
		for _, w := range []*waiting{
			got.waiting("a", 1000, 5*time.Minute), got.waiting("b", 1000, time.Minute),
			got.waiting("c", 0, 10*time.Minute), got.waiting("d", 1001, 10*time.Minute), got.waiting("e", 1001, 20*time.Minute),
		} {
			if err := u.add(w); err != nil {
				t.Fatal(err)
			}
		}
		var names string
		for _, p := range u.list() {
			names += p.Change
		}
		if names != "bacde" {
			t.Errorf("they wait as %q, want the first to be taken back first", names)
		}

		refused := func(who view.Caller, number uint64, status int) {
			t.Helper()
			var no *view.Refusal
			if _, err := u.confirm(who, number); !errors.As(err, &no) || no.Status != status {
				t.Errorf("confirm %d: %v, want status %d", number, err, status)
			}
		}
		refused(other, 1, 403)
		refused(member, 3, 403)
		refused(root, 6, 410)
		time.Sleep(time.Minute + time.Nanosecond) // of the bubble
		synctest.Wait()
		refused(member, 2, 410) // too late
		for _, ok := range []struct {
			who    view.Caller
			number uint64
		}{{member, 1}, {root, 4}} {
			if p, err := u.confirm(ok.who, ok.number); err != nil || p.Number != ok.number {
				t.Errorf("confirm %d: %+v, %v", ok.number, p, err)
			}
		}
		refused(root, 1, 410)
		u.end()
		if err := u.add(got.waiting("f", 0, time.Minute)); !errors.Is(err, errStopping) {
			t.Errorf("taken in after the end: %v", err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		want := fates{"b is taken back", "a stands", "d stands", "e at the stop is taken back", "c at the stop is taken back"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q\nwant %q", got, want)
		}
	})
}

func TestUnconfirmedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u unconfirmed
		var got fates
		for range maxUnconfirmed {
			if err := u.add(got.waiting("x", 0, time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		var no *view.Refusal
		for _, err := range []error{u.hasRoom(), u.add(got.waiting("y", 0, time.Minute))} {
			if !errors.As(err, &no) || no.Status != 429 {
				t.Errorf("one too many: %v", err)
			}
		}
		if _, err := u.confirm(view.Caller{Root: true}, 7); err != nil {
			t.Error(err)
		}
		if err := u.hasRoom(); err != nil {
			t.Errorf("after one was confirmed: %v", err)
		}
		u.end()
		if len(got) != maxUnconfirmed {
			t.Errorf("%d came to an end, want %d", len(got), maxUnconfirmed)
		}
	})
}

// What is being taken back is waited for.
func TestUnconfirmedEndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u unconfirmed
		done := false
		w := &waiting{Pending: view.Pending{Confirm: time.Now().Add(time.Second)}}
		w.back = func(bool) {
			time.Sleep(3 * time.Second)
			done = true
		}
		if err := u.add(w); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if u.end(); !done {
			t.Error("the end did not wait")
		}
	})
}
