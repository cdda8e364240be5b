package memory

import (
	"encoding/binary"
	"math"
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/detect"
)

var testKey = key{0x0706050403020100, 0x0f0e0d0c0b0a0908}

// t0 is a Monday, at midnight UTC.
var t0 = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()

const (
	day  = int64(24 * time.Hour)
	hour = int64(time.Hour)
	mins = int64(time.Minute)
)

// What a failure weighs, and where the decision falls.
var (
	step      = math.Log(.99 / .05)
	threshold = math.Log(.99 / 1e-6)
)

func addr(i uint64) netip.Addr {
	var b [16]byte
	b[0] = 0x20
	binary.BigEndian.PutUint64(b[8:], i)
	return netip.AddrFrom16(b)
}

// fail is what a tier above does at a failure of a at a port of its own: recall, count, keep.
func fail(l *Long, a netip.Addr, t int64) detect.Memory {
	m, ok := l.Recall(a, t)
	if !ok {
		m.First, m.Last = t, t
	}
	m.Score += float32(step)
	m.Ports |= m.Ports<<1 | 1
	m.Days = m.Days<<max(t/day-m.Last/day, 0) | 1 // a file may say what is still to come
	m.Last = t
	l.Keep(a, m)
	return m
}

func TestSipHash(t *testing.T) {
	// The test vector of the reference implementation for the input 00 01 ... 0f.
	if got := testKey.hash(testKey.k0, testKey.k1); got != 0x3f2acc7f57c29bdb {
		t.Errorf("hash %#x", got)
	}
}

func TestKeepRecall(t *testing.T) {
	l := New(Options{})
	a, other := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::1")
	m := detect.Memory{
		First: t0 - 3*day + 5, Last: t0 + 90*int64(time.Second), Score: 8.957, Verified: -4.5,
		Ports: 1<<63 | 5, Days: 9,
	}
	l.Keep(a, m)
	got, ok := l.Recall(a, t0+hour)
	if !ok {
		t.Fatal("nothing remembered")
	}
	if got.First != t0-3*day || got.Last != t0+mins || got.Ports != m.Ports || got.Days != m.Days {
		t.Errorf("got %+v of %+v", got, m)
	}
	for _, c := range [][2]float32{{got.Score, m.Score}, {got.Verified, m.Verified}} {
		if math.Abs(float64(c[0]-c[1])) > scoreUnit/2 {
			t.Errorf("score %v, kept %v", c[0], c[1])
		}
	}
	if _, ok := l.Recall(other, t0); ok {
		t.Error("somebody who never was here is remembered")
	}
	l.Keep(other, detect.Memory{First: t0, Last: t0 + hour, Score: 0})
	if _, ok := l.Recall(other, t0+hour); ok {
		t.Error("somebody without a score is remembered")
	}
	l.Keep(a, detect.Memory{First: t0, Last: t0 + hour, Score: -2})
	if got, ok := l.Recall(a, t0+hour); !ok || got.Score != -2 {
		t.Errorf("a score that fell was not kept: %+v", got)
	}
	if s := l.Stats(); s != (Stats{Entries: 1, Kept: 2}) {
		t.Errorf("stats %+v", s)
	}
}

func TestExtremes(t *testing.T) {
	inf := float32(math.Inf(1))
	l := New(Options{Bytes: 1, HalfLife: 1})
	for i, m := range []detect.Memory{
		{First: math.MinInt64, Last: math.MinInt64, Score: inf, Verified: -inf},
		{First: math.MaxInt64, Last: math.MaxInt64, Score: float32(math.NaN()), Verified: 1e30},
		{Score: 1}, {}, {Last: math.MaxInt64, Score: math.SmallestNonzeroFloat32},
	} {
		for range 30 {
			l.Keep(addr(uint64(i)), m)
			for _, now := range []int64{math.MinInt64, 0, math.MaxInt64} {
				if got, ok := l.Recall(addr(uint64(i)), now); ok && !(got.Score <= 64 && got.Score >= -64) {
					t.Errorf("%+v is remembered as %+v", m, got)
				}
			}
		}
	}
}

// While there is room nobody is lost, and the memory taken follows the number of sources.
func TestGrowth(t *testing.T) {
	l := newKeyed(Options{Bytes: 2 << 20}, testKey)
	if l.Bytes() != 0 {
		t.Errorf("empty it takes %d bytes", l.Bytes())
	}
	const n = 55_000 // of 65,536
	for i := range uint64(n) {
		l.Keep(addr(i), detect.Memory{First: t0, Last: t0 + hour, Score: 3, Ports: i})
		if b, most := l.Bytes(), int(i+1)*32*3/2+128<<10; i%500 == 0 && b > most {
			t.Fatalf("%d bytes for %d sources, more than %d", b, i+1, most)
		}
	}
	for i := range uint64(n) {
		if m, ok := l.Recall(addr(i), t0+hour); !ok || m.Ports != i {
			t.Fatalf("source %d is %v, %+v", i, ok, m)
		}
	}
	if s := l.Stats(); s.Entries != n || s.PushedOut != 0 {
		t.Errorf("stats %+v", s)
	}
	for i := range uint64(2 * n) {
		l.Keep(addr(n+i), detect.Memory{First: t0, Last: t0 + hour, Score: 3})
	}
	if l.Bytes() != 2<<20 {
		t.Errorf("full it takes %d bytes", l.Bytes())
	}
	if s := l.Stats(); s.Entries < 65_536*999/1000 {
		t.Errorf("full it holds %d", s.Entries)
	}
}

// What is in it does not show who it is of: the same under another key is elsewhere.
func TestKeys(t *testing.T) {
	a, b := New(Options{}), New(Options{})
	if a.hash(addr(1)) == b.hash(addr(1)) {
		t.Error("two memories have the same key")
	}
}

func TestDoorkeeper(t *testing.T) {
	d := door{blocks: 1 << 11}
	full := uint64(d.blocks * perBlock)
	h := func(i uint64) uint64 { return testKey.hash(i, 0) }
	wrong := func() float64 {
		n := 0
		for i := range uint64(200_000) {
			if d.has(h(1<<40 + i)) {
				n++
			}
		}
		return float64(n) / 200_000
	}
	if d.bytes() != 0 || wrong() != 0 {
		t.Error("the empty door knows somebody, or takes memory")
	}
	for i := range full {
		d.add(h(i))
	}
	one := wrong()
	for i := uint64(0); d.older == nil || d.n < int(full)*99/100; i++ {
		d.add(h(full + i))
	}
	two := wrong()
	t.Logf("false positives: %.2f %% with one generation, %.2f %% with two", 100*one, 100*two)
	if one < .02 || one > .031 || two < .04 || two > .062 {
		t.Errorf("false positives %.4f and %.4f, not as the comment says", one, two)
	}
	// The newer generation is full of the last ones; the one before it is there too.
	for i := range full {
		if !d.has(h(i)) {
			t.Fatalf("%d of %d is not known any more", i, full)
		}
	}
	for i := range 2 * full {
		d.add(h(1<<50 + i))
	}
	n := 0
	for i := range full {
		if d.has(h(i)) {
			n++
		}
	}
	if got := float64(n) / float64(full); got > .065 {
		t.Errorf("%.3f of those of two generations ago are known", got)
	}
	if d.bytes() != 2*d.blocks*blockBytes {
		t.Errorf("%d bytes", d.bytes())
	}
}

// Seen in one minute only: on probation, and in a quarter of the table at most. In the
// same minute nobody becomes known by coming again.
func TestProbation(t *testing.T) {
	l := newKeyed(Options{Bytes: 1 << 20}, testKey) // 32,768 sources
	for i := range uint64(200_000) {
		fail(l, addr(i%50_000), t0+int64(i%60))
	}
	s := l.Stats()
	if s.Probation < 8192 || s.Probation > 8192*102/100 || s.Entries > 8192*110/100 || s.Refused == 0 {
		t.Errorf("of a flood within a minute: %+v", s)
	}
	// The next minute: some of those noted come again, and are let in.
	for i := range uint64(20_000) {
		fail(l, addr(1<<30+i), t0+mins)
	}
	known := 0
	for i := range uint64(50_000) {
		a := addr(i)
		if _, ok := l.Recall(a, t0+2*mins); !ok && l.door.has(l.hash(a)) {
			fail(l, a, t0+2*mins)
			m, ok := l.Recall(a, t0+2*mins)
			if !ok || m.First >= m.Last {
				t.Fatalf("seen in two minutes, and %v %+v", ok, m)
			}
			known++
		}
	}
	if known < 5000 {
		t.Errorf("the doorkeeper knew %d", known)
	}
}
