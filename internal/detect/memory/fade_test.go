package memory

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// found says at which of n failures with a constant gap the threshold is crossed, 0: none.
func found(l *Long, n int, gap time.Duration) int {
	for i := range n {
		if m := fail(l, addr(1), t0+int64(i)*int64(gap)); float64(m.Score) >= threshold {
			return i + 1
		}
	}
	return 0
}

func TestHorizon(t *testing.T) {
	const grain = 6 * time.Minute // of what is kept: minutes, and scores in 1/512
	for _, half := range []time.Duration{6 * time.Hour, DefaultHalfLife, 10 * 24 * time.Hour} {
		for _, n := range []int{5, 6, 7, 9} {
			g := Horizon(n, step, threshold, half)
			below, above := g-grain, g+grain
			if half > DefaultHalfLife { // scores of long half-lives weigh 1/512 longer
				below, above = g-2*grain, g+2*grain
			}
			if at := found(New(Options{HalfLife: half}), n, below); at == 0 {
				t.Errorf("half-life %v: %d failures every %v are not found", half, n, below)
			}
			if at := found(New(Options{HalfLife: half}), n, above); at != 0 {
				t.Errorf("half-life %v: failure %d of %d every %v is one too many", half, at, n, above)
			}
		}
	}
	for _, c := range []struct {
		n               int
		step, threshold float64
		want            time.Duration
	}{
		{4, step, threshold, 0},
		{0, step, threshold, 0},
		{5, 3, 15, DefaultHalfLife},               // no fading allowed
		{2, 2, 3, 2 * DefaultHalfLife},            // 2 + 2/2
		{2, 4, 5, 3 * DefaultHalfLife},            // 4 + 4/4
		{9, 3, 3, forgotten - time.Minute},        // each by itself
		{3, 3, 3.000001, forgotten - time.Minute}, // by memory of anything
	} {
		got := Horizon(c.n, c.step, c.threshold, DefaultHalfLife)
		if d := (got - c.want).Abs(); d > time.Second {
			t.Errorf("Horizon(%d, %v, %v) = %v, not %v", c.n, c.step, c.threshold, got, c.want)
		}
	}
	t.Logf("five ports: %v, six: %v", Horizon(5, step, threshold, DefaultHalfLife), Horizon(6, step, threshold, DefaultHalfLife))
}

// Every speed that is promised, found at the fifth port, with a restart in between.
func TestSlowScans(t *testing.T) {
	for _, gap := range []time.Duration{15 * time.Second, 300 * time.Second, time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour} {
		for restart := range 5 {
			l := New(Options{})
			at := 0
			for i := range 5 {
				if i == restart {
					l = reload(t, l, Options{})
				}
				if m := fail(l, addr(1), t0+int64(i)*int64(gap)); float64(m.Score) >= threshold {
					at = i + 1
				}
			}
			if at != 5 {
				t.Errorf("one port every %v, restarted before the %dth: found at %d", gap, restart+1, at)
			}
		}
	}
}

func TestForgotten(t *testing.T) {
	l := New(Options{})
	for range 4 {
		fail(l, addr(1), t0)
	}
	for _, c := range []struct {
		gap  int64
		want float64
	}{{-day, 1}, {0, 1}, {7 * day, 1}, {14 * day, .5}, {28 * day, .125}, {32*day - 1, math.Exp2(1 - 32./7)}} {
		m, ok := l.Recall(addr(1), t0+c.gap)
		if got := float64(m.Score) / (4 * step); !ok || math.Abs(got-c.want) > .001 {
			t.Errorf("after %v: %.4f of the score, not %.4f", time.Duration(c.gap), got, c.want)
		}
	}
	if _, ok := l.Recall(addr(1), t0+32*day); ok {
		t.Error("remembered after 32 days")
	}
}

// Innocents that share an address and fail at random: false alarms come at the rate that the
// package comment derives. Rare chains of six or more are not in it, nor that two gaps
// cannot both be as long as one may be.
func TestFalseAlarms(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	half := DefaultHalfLife.Hours() / 24
	for _, rate := range []float64{1. / 14, 1. / 35} { // failures a day
		const failures = 800_000
		alarms, score, days := 0, 0.0, 0.0
		for range failures {
			gap := r.ExpFloat64() / rate
			days += gap
			if score = score*fade(time.Duration(gap*float64(day)), DefaultHalfLife) + step; score >= threshold {
				alarms++
				score = 0
			}
		}
		got, want := float64(alarms)/days, rate
		for k := 1.; k <= 4; k++ {
			gap := half * (1 + math.Log2(k/(k-(5-threshold/step))))
			want *= 1 - math.Exp(-rate*gap)
		}
		t.Logf("a failure in %.0f days: %.3g false alarms a day, by the formula %.3g", 1/rate, got, want)
		if got > 1.3*want || got < want/1.3 {
			t.Errorf("a failure in %.0f days: %.3g false alarms a day, by the formula %.3g", 1/rate, got, want)
		}
	}
}
