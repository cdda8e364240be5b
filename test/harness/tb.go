package harness

import "context"

// TB is the part of testing.TB that MustStart needs.
type TB interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	TempDir() string
	Error(...any)
	Fatal(...any)
}

// MustStart is Start for tests: in a folder of the test's own, stopped when the
// test ends. A daemon that ended by itself or cannot stop in order fails the
// test, unless the test killed it.
func MustStart(t TB, o Options) *Daemon {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	d, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.killed {
			return
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	return d
}
