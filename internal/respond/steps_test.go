package respond

import (
	"testing"

	"portsentry/internal/config"
	"portsentry/internal/judge"
)

// A command that failed is tried again with the next hit that permits it, and
// with no other: its host may hold a connection by now.
func TestWeakEvidenceRetriesNoCommand(t *testing.T) {
	run := &fakeRunner{room: 10}
	r := New(nil, run, Plan{Ban: []Step{StepRoute}}, &ledger{})
	later := func(Outcome) {}
	answer(r, verdict(scanner, judge.Soft, config.BlockBan), false, later)
	run.finish(0, StepRoute)
	if o, deferred := answer(r, verdict(scanner, judge.Limited, config.BlockBan), false, never(t)); o.Blocked || deferred || len(run.orders) != 1 {
		t.Errorf("weak evidence: %+v, deferred %v, %d orders", o, deferred, len(run.orders))
	}
	if _, deferred := answer(r, verdict(scanner, judge.Soft, config.BlockBan), false, later); !deferred || len(run.orders) != 2 {
		t.Errorf("then enough of it: deferred %v, %d orders", deferred, len(run.orders))
	}
}
