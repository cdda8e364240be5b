package sqlite

import (
	"database/sql"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"portsentry/internal/respond"
	"portsentry/internal/store"
)

func size(t *testing.T, path string) (n int64) {
	t.Helper()
	for _, end := range []string{"", "-wal"} {
		if fi, err := os.Stat(path + end); err == nil {
			n += fi.Size()
		}
	}
	return n
}

// long reports whether what takes minutes is to be run: not under the race detector, which
// makes hours of them.
func long() bool { return os.Getenv("PORTSENTRY_LONG") == "1" && !underRace }

// flood sees forged sources, n of them, spread over so many intervals, each of which is
// banned for a while.
func flood(t *testing.T, j *Journal, n, intervals int) {
	t.Helper()
	for i := range n {
		a := netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
		r := record(a.String(), uint16(i), time.Duration(i)*span*time.Duration(intervals)/time.Duration(n))
		j.Seen(r)
		b := ban(netip.PrefixFrom(a, 32).String(), -time.Hour, 30*time.Minute)
		j.Began(b, a)
		j.Ended(b, a, respond.End{})
		if i%8192 == 8191 {
			for j.Stats().Waiting > 0 {
				if err := j.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := j.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The database stays as small as it must, forgets what is oldest, and no ban that stands.
func TestSizeIsBounded(t *testing.T) {
	n, most := 4_000, int64(4<<20)
	if long() {
		n, most = 1_000_000, 8<<20
	}
	path := file(t)
	j, _, stop := running(t, Options{Path: path, Size: most})
	stands := ban("203.0.113.9/32", 0, 10*time.Hour)
	j.Began(stands, stands.Prefix.Addr())
	flood(t, j, n, 10)
	wait(t, "everything to be written and tidied", func() bool {
		j.Flush(t.Context())
		return j.Stats().Waiting == 0 && size(t, path) <= most
	})
	st := j.Stats()
	t.Logf("%d forged sources, each banned: the database takes %d KiB, %d sightings counted without a source, %d events lost", n, size(t, path)>>10, st.Together, st.Lost)
	if st.Seen != uint64(n) || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
	if lives, _, err := j.Lives(t.Context(), store.Filter{Source: stands.Prefix}); len(lives) != 1 || err != nil {
		t.Errorf("the ban that stands: %v, %v", lives, err)
	}
	stop()
	integrity(t, path)
}

// What is older than it may be goes, but no ban that stands.
func TestAge(t *testing.T) {
	path := file(t)
	j, _, stop := running(t, Options{Path: path})
	old := ban("203.0.113.9/32", -100*time.Hour, time.Hour)
	j.Began(old, old.Prefix.Addr())
	stands := ban("203.0.113.8/32", -100*time.Hour, 1000*time.Hour)
	j.Began(stands, stands.Prefix.Addr())
	j.Seen(record("203.0.113.9", 23, 0)) // long ago
	now := record("203.0.113.8", 23, 0)
	now.Verdict.Sighting.Time = time.Now().UnixNano()
	settled(t, j)
	stop()
	j, _, _ = running(t, Options{Path: path, Keep: 10 * time.Hour})
	j.Seen(now)
	wait(t, "the old to be gone", func() bool {
		sums, err := j.Sums(t.Context(), time.Time{}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		return sums.Probes == 1 && sums.Begun == 1 && sums.Standing == 1
	})
}

// All that is seen is counted, by its kind if there is no room for its source. Where
// there is none left, who has sent one packet has no row either.
func TestCountsAreExact(t *testing.T) {
	j, _, _ := running(t, Options{})
	const n = 10_000
	for range 2 {
		j.Seen(record("203.0.113.8", 23, 0))
	}
	for i := range n {
		a := netip.AddrFrom4([4]byte{20, 0, byte(i >> 8), byte(i)})
		j.Seen(record(a.String(), uint16(i), 0))
	}
	proved := record("203.0.113.9", 23, 0)
	proved.Verdict.Sighting.Verified = true
	j.Seen(proved)
	settled(t, j)
	sums, err := j.Sums(t.Context(), time.Time{}, time.Time{})
	if sums.Probes != n+3 || sums.Sources > maxForged+1 || sums.Together != n+2-sums.Sources || err != nil {
		t.Errorf("%d probes of %d sources, %d together, %v", sums.Probes, sums.Sources, sums.Together, err)
	}
	for who, address := range map[string]string{"is proved": "203.0.113.9/32", "came twice": "203.0.113.8/32"} {
		events, _, err := j.Events(t.Context(), store.Filter{Source: netip.MustParsePrefix(address)})
		if len(events) != 1 || err != nil {
			t.Errorf("the one that %s has no row: %v, %v", who, events, err)
		}
	}
}

// A writer that stands still holds nobody up; what has no room is counted.
func TestStalled(t *testing.T) {
	j := Open(Options{Say: func(string, string) {}}) // nobody runs it
	for i := range maxQueue + 10 {
		b := respond.Ban{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), Since: base}
		j.Began(b, b.Prefix.Addr())
	}
	if st := j.Stats(); st.Lost != 10 || st.Waiting != maxQueue {
		t.Errorf("%+v", st)
	}
	if first := j.queue.at(j.queue.first).ban.Prefix.String(); first != "10.0.0.10/32" {
		t.Errorf("the oldest is %s", first)
	}
	for i := range 10 * ringSize {
		j.Seen(record(fmt.Sprintf("10.0.0.%d", i%200), 23, 0))
	}
	if st := j.Stats(); st.Seen != 10*ringSize {
		t.Errorf("%+v", st)
	}
	if r := j.Recent(netip.MustParseAddr("10.0.0.7")); len(r) == 0 || len(r) > mostRecent {
		t.Errorf("%d recent packets", len(r))
	}
}

// The checks of SQLite itself find nothing in what was written.
func integrity(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var said string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&said); said != "ok" || err != nil {
		t.Error(said, err)
	}
}

// In memory even bans that stand make room: nothing is put back from there.
func TestMemoryIsBounded(t *testing.T) {
	if !long() {
		t.Skip("runs in make test-long")
	}
	j, _, _ := running(t, Options{})
	for i := range 60_000 {
		b := ban(fmt.Sprintf("20.%d.%d.%d/32", i>>16, i>>8&255, i&255), 0, time.Hour)
		j.Began(b, b.Prefix.Addr())
	}
	settled(t, j)
	wait(t, "the database to be small", func() bool { j.Flush(t.Context()); return j.Stats().Bytes <= memorySize })
	if n := standsIn(t, j); n == 0 || n >= 60_000 {
		t.Errorf("%d bans are left", n)
	}
}
