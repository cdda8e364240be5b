package ipset

import (
	"strings"
	"testing"
	"time"

	"portsentry/test/banlab"
)

// lab is a banlab with sets.
type lab struct {
	*banlab.Lab
	t *testing.T
}

func newLab(t *testing.T) *lab {
	t.Helper()
	return &lab{banlab.New(t), t}
}

func (l *lab) open() *Sets {
	l.t.Helper()
	var s *Sets
	if err := l.Host.Do(func() (err error) { s, err = Open(); return err }); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	return s
}

// rules adds the rules that s asks for.
func (l *lab) rules(s *Sets) {
	l.t.Helper()
	for _, rule := range s.Rules() {
		l.Run(strings.Fields(rule)...)
	}
	if v4, v6, err := s.Referenced(); !v4 || !v6 || err != nil {
		l.t.Fatalf("Referenced = %v, %v, %v after adding %q", v4, v6, err, s.Rules())
	}
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within 10 s", what)
		case <-tick.C:
		}
	}
}
