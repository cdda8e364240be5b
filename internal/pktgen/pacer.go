package pktgen

import (
	"context"
	"time"
)

// spinBelow is the wait that is spun away instead of slept: a sleep may end
// this much late.
const spinBelow = 200 * time.Microsecond

// pacer spreads a run over time: frame i is due at start + i/rate. A run that
// falls behind catches up, so that its mean rate is what was asked for.
type pacer struct {
	start time.Time
	rate  float64 // a second; 0: everything is due at once
}

// wait returns when frame sent is due, or ctx ends, and says how many are due.
func (p *pacer) wait(ctx context.Context, sent int) int {
	if p.rate <= 0 {
		return batch
	}
	at := time.Duration(float64(sent) / p.rate * float64(time.Second))
	for {
		elapsed := time.Since(p.start)
		if elapsed >= at {
			return max(1, int(elapsed.Seconds()*p.rate)+1-sent)
		}
		if left := at - elapsed; left > spinBelow {
			sleep(ctx, left-spinBelow)
			if ctx.Err() != nil {
				return 1
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
