package memory

import (
	"testing"
	"time"
)

// flood is a time of forged addresses with real slow scanners among them. Everything is
// scaled: a table of 1/scale of the full one meets 1/scale of the rate, and so each
// bucket meets what it would meet in full.
type flood struct {
	scale    int
	rate     int           // forged sources a second, before scaling
	failures int           // of each: in one minute and the minutes after it
	gap      time.Duration // between two failures of a scanner
	scanners int
	before   int // failures of the scanners before the flood begins
}

// run says how many scanners were found at which failure, most is where it stops; and the
// memory.
func (f flood) run(most int) (at []int, l *Long) {
	l = newKeyed(Options{Bytes: DefaultBytes / f.scale}, testKey)
	at = make([]int, most+1)
	now, forged := t0, uint64(1<<40)
	each := int64(time.Second) * int64(f.scale) / int64(f.rate)
	done := make([]bool, f.scanners)
	scan := func(nth int) {
		for s := range f.scanners {
			if !done[s] && float64(fail(l, addr(uint64(s)), now).Score) >= threshold {
				done[s] = true
				at[nth]++
			}
		}
	}
	for nth := 1; nth <= most; nth++ {
		scan(nth)
		end := now + int64(f.gap)
		for ; now < end && nth >= f.before; now += each {
			for i := range f.failures {
				fail(l, addr(forged), now+int64(i)*mins)
			}
			forged++
		}
		now = end
	}
	return at, l
}

// One failed port per 6 hours among 300 forged sources a second, which is 6.5 million
// between two failures. The first failure is forgotten: probation lasts 262,144/300 s =
// 15 minutes, but the doorkeeper knows 7.7 hours at least. It takes up to 4.7 % of the
// forged for known as well; these 14 a second fill what is not for probation, 786,432
// entries, in 15 hours at the soonest, and then the oldest of them go first. So a source
// with one failure lives for more than twice the gap, and from its second one on
// it is safe for a week. The sixth port is where it is found.
func TestSlowAmongForged(t *testing.T) {
	for _, c := range []struct {
		gap time.Duration
		at  int
	}{{15 * time.Second, 5}, {300 * time.Second, 5}, {time.Hour, 6}, {6 * time.Hour, 6}} {
		f := flood{scale: 128, rate: 300, failures: 1, gap: c.gap, scanners: 200}
		at, l := f.run(8)
		t.Logf("one port every %v: found at the nth port %v; %+v, %d bytes", c.gap, at, l.Stats(), l.Bytes())
		if at[c.at] < 198 {
			t.Errorf("one port every %v: %d of 200 found at port %d", c.gap, at[c.at], c.at)
		}
		if most := DefaultBytes / 128 * 3 / 2; l.Bytes() > most {
			t.Errorf("%d bytes, more than %d", l.Bytes(), most)
		}
	}
}

// The worst that addresses can be forged: a million of them, each failing at j ports in j
// minutes. That is as much as a scanner has after j failures; it is safe with more, for 7
// days * log2(k/j), and lost with fewer. When they stop, nothing stays of it: who comes
// later is remembered again.
func TestWorstForged(t *testing.T) {
	for _, c := range []struct {
		j, before   int
		least, most float64 // share of the scanners found at the 5th port
	}{
		{2, 1, 0, .05},
		{2, 2, 0, .05},
		{2, 3, .99, 1},
		{3, 3, 0, .05},
		{3, 4, .99, 1},
		{4, 4, 0, .05},
	} {
		// Twice as many between two probes as there is room for.
		const gap = 6 * time.Hour
		f := flood{
			scale: 128, rate: 2 << 20 / (6 * 3600), failures: c.j,
			gap: gap, scanners: 100, before: c.before,
		}
		at, l := f.run(5)
		got := float64(at[5]) / 100
		if got < c.least || got > c.most {
			t.Errorf("forged with %d failures, scanner with %d before: %.2f found; %+v", c.j, c.before, got, l.Stats())
		}
		after, later := 0, t0+5*int64(gap)
		for i := range int64(5) {
			for s := range uint64(100) {
				if float64(fail(l, addr(1000+s), later+i*int64(gap)).Score) >= threshold {
					after++
				}
			}
		}
		if after < 98 {
			t.Errorf("after forging with %d failures %d of 100 scanners are found at the fifth port", c.j, after)
		}
	}
}
