package sqlite

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// said is what a Journal has said, by key.
type said struct {
	mu  sync.Mutex
	now map[string]string
}

func (s *said) say(key, sentence string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		s.now = make(map[string]string)
	}
	s.now[key] = sentence
}

func (s *said) of(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now[key]
}

// running opens a Journal at path, runs it until the end of the test or stop, and gives
// what it says.
func running(t *testing.T, o Options) (j *Journal, s *said, stop func()) {
	t.Helper()
	s = new(said)
	o.Say = s.say
	if o.Keep == 0 {
		o.Keep = 90 * 24 * time.Hour
	}
	if o.Size == 0 {
		o.Size = 64 << 20
	}
	j = Open(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return j, s, stop
}

func file(t *testing.T) string { return filepath.Join(t.TempDir(), "portsentry.db") }

// wait polls until ok, and fails the test when that takes too long.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// settled waits until all that has come in is written, however busy the machine is.
func settled(t *testing.T, j *Journal) {
	t.Helper()
	wait(t, "everything to be written", func() bool { return j.Flush(t.Context()) == nil && j.Stats().Waiting == 0 })
}

var base = time.Unix(1790000000, 0)

// record is a sighting of source at a time after base.
func record(source string, port uint16, after time.Duration) *store.Record {
	return &store.Record{Verdict: judge.Verdict{Evidence: judge.E1, Sighting: detect.Sighting{
		Time: base.Add(after).UnixNano(), IfIndex: 2,
		Src: netip.MustParseAddr(source), Dst: netip.MustParseAddr("10.0.0.1"), SrcPort: 40000, DstPort: port,
		Proto: decode.ProtoTCP, Kind: detect.KindSYN, Flags: decode.SYN, TTL: 63, IPOptions: decode.No,
		Seq: 7, Ack: 0, Window: 1024, IPID: 99, Count: 1, Triggered: true,
	}}}
}

func ban(prefix string, since, length time.Duration) respond.Ban {
	now := time.Now()
	return respond.Ban{
		Prefix: netip.MustParsePrefix(prefix), Strength: judge.Soft, Evidence: judge.E1,
		Since: now.Add(since), Until: now.Add(since + length), Times: 1, Reason: "because", Port: 23, Proto: decode.ProtoTCP, Kind: "syn",
	}
}

var equalTimes = cmp.Options{cmpopts.EquateApproxTime(0), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

func TestJournal(t *testing.T) {
	path := file(t)
	j, _, stop := running(t, Options{Path: path})
	for i := range 5 {
		j.Seen(record("203.0.113.9", uint16(20+i), time.Duration(i)*time.Second))
	}
	named := record("203.0.113.9", 20, 6*time.Second)
	named.Name = "scanner.example"
	named.Verdict.Sighting.Scan = detect.Found{Kind: detect.KindSYN, Ports: 5, Tool: "nmap", Campaign: 3}
	j.Seen(named)
	j.Named(named)
	j.Seen(record("2001:db8::9", 23, 20*time.Minute))
	b := ban("203.0.113.9/32", -time.Minute, time.Hour)
	j.Began(b, b.Prefix.Addr())
	longer := b
	longer.Since, longer.Until, longer.Times, longer.Strength = b.Since.Add(time.Second), b.Until.Add(time.Hour), 2, judge.Full
	j.Began(longer, b.Prefix.Addr())
	other := ban("2001:db8::/64", -time.Minute, time.Hour)
	other.By = "uid 0"
	j.Began(other, netip.MustParseAddr("2001:db8::9"))
	end := respond.End{Ending: respond.Lifted, By: "uid 1000"}
	j.Ended(other, netip.MustParseAddr("2001:db8::9"), end)
	j.Changed("uid 0", "reload")

	look := func(j *Journal) {
		t.Helper()
		settled(t, j)
		events, more, err := j.Events(t.Context(), store.Filter{})
		want := []store.Interval{
			{
				Source: netip.MustParseAddr("2001:db8::9"), Kind: detect.KindSYN, Proto: decode.ProtoTCP, First: base.Add(20 * time.Minute), Last: base.Add(20 * time.Minute),
				Count: 1, Ports: 1, Port: 23, Dst: netip.MustParseAddr("10.0.0.1"), Triggered: 1,
			}, {
				Source: netip.MustParseAddr("203.0.113.9"), Kind: detect.KindSYN, Proto: decode.ProtoTCP, First: base, Last: base.Add(6 * time.Second),
				Count: 6, Ports: 5, Port: 20, Dst: netip.MustParseAddr("10.0.0.1"), Triggered: 6,
			},
		}
		if d := cmp.Diff(want, events, equalTimes); d != "" || more || err != nil {
			t.Error(d, more, err)
		}
		sources, _, err := j.Sources(t.Context(), store.Filter{Source: netip.MustParsePrefix("203.0.113.0/24")})
		wantSource := []store.Source{{
			Addr: netip.MustParseAddr("203.0.113.9"), Name: "scanner.example", First: base, Last: base.Add(6 * time.Second), Probes: 6,
			Kinds: []detect.Kind{detect.KindSYN}, Ports: 5, Evidence: judge.E1, Bans: 1, Tool: "nmap", Campaign: 3, Scan: named.Verdict.Sighting.Scan,
		}}
		if d := cmp.Diff(wantSource, sources, equalTimes); d != "" || err != nil {
			t.Error(d, err)
		}
		lives, _, err := j.Lives(t.Context(), store.Filter{Source: netip.MustParsePrefix("203.0.113.9/32")})
		if err != nil || len(lives) != 1 {
			t.Fatal(lives, err)
		}
		l := lives[0]
		if len(l.Packets) != 6 || l.Packets[0].Time != base.UnixNano() || l.Packets[0].Seq != 7 || l.Packets[5].DstPort != 20 {
			t.Errorf("packets %+v", l.Packets)
		}
		now := longer
		now.Since = b.Since
		if d := cmp.Diff(store.Life{
			Ban: now, Host: b.Prefix.Addr(), Changes: []respond.Ban{b, longer}, Packets: l.Packets, Found: named.Verdict.Sighting.Scan,
		}, l, equalTimes); d != "" {
			t.Error(d)
		}
		lives, _, err = j.Lives(t.Context(), store.Filter{Source: netip.MustParsePrefix("2001:db8::9/128"), Ended: true})
		if err != nil || len(lives) != 1 || lives[0].End != end || lives[0].Ended.IsZero() || lives[0].By != "uid 0" || lives[0].Host.String() != "2001:db8::9" {
			t.Error(lives, err)
		}
		changes, _, err := j.Changes(t.Context(), store.Filter{})
		if err != nil || len(changes) != 1 || changes[0].By != "uid 0" || changes[0].Text != "reload" {
			t.Error(changes, err)
		}
		sums, err := j.Sums(t.Context(), base.Add(-time.Hour), time.Now().Add(time.Hour))
		if d := cmp.Diff(store.Sums{
			Probes: 7, Triggered: 7, Sources: 2, Begun: 2, Ended: 1, Standing: 1,
			Kinds:   []store.KindSum{{Kind: detect.KindSYN, Count: 7}},
			Top:     []store.SourceSum{{Addr: netip.MustParseAddr("203.0.113.9"), Count: 6}, {Addr: netip.MustParseAddr("2001:db8::9"), Count: 1}},
			Endings: []store.EndingSum{{Ending: respond.Lifted, Count: 1}},
		}, sums, equalTimes, cmpopts.IgnoreFields(store.Sums{}, "Ports")); d != "" || err != nil || len(sums.Ports) != 5 || sums.Ports[0].Count != 2 {
			t.Error(d, sums.Ports, err)
		}
	}
	look(j)
	if r := j.Recent(netip.MustParseAddr("203.0.113.9")); len(r) != 6 || r[0].Window != 1024 || r[0].IPID != 99 {
		t.Errorf("recent %+v", r)
	}
	stop()
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Error(fi, err)
	}
	j, s, _ := running(t, Options{Path: path})
	look(j)
	rows, err := j.Standing(t.Context(), func(int) {})
	if d := cmp.Diff([]respond.InForce{{Ban: longer, Host: b.Prefix.Addr()}}, rows, equalTimes); d != "" || err != nil {
		t.Error(d, err)
	}
	if got := s.of(keyKept) + s.of(keyDamaged); got != "" {
		t.Error(got)
	}
}

func TestMemory(t *testing.T) {
	j, s, _ := running(t, Options{})
	j.Seen(record("203.0.113.9", 23, 0))
	settled(t, j)
	events, _, err := j.Events(t.Context(), store.Filter{Limit: 1})
	if len(events) != 1 || err != nil || s.of(keyKept) != "" {
		t.Error(events, err, s.of(keyKept))
	}
}

func TestSeenAllocatesNothing(t *testing.T) {
	j := Open(Options{Say: func(string, string) {}})
	r := record("203.0.113.9", 23, 0)
	var n uint32
	got := testing.AllocsPerRun(20000, func() {
		n++
		r.Verdict.Sighting.Src = netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		r.Verdict.Sighting.DstPort = uint16(n)
		j.Seen(r)
	})
	if got != 0 {
		t.Errorf("%v allocations", got)
	}
	if s := j.Stats(); s.Seen != 20001 || s.Together == 0 {
		t.Errorf("%+v", s)
	}
}

// A ban that is relaxed stands as what it has become, since when it began; told again,
// it has not changed once more.
func TestRelaxed(t *testing.T) {
	path := file(t)
	j, _, stop := running(t, Options{Path: path})
	b := ban("203.0.113.9/32", -time.Minute, time.Hour)
	j.Began(b, b.Prefix.Addr())
	relaxed := b
	relaxed.Strength, relaxed.Reason = judge.Limited, "because; limited"
	for range 2 {
		j.Began(relaxed, b.Prefix.Addr())
		settled(t, j)
		lives, _, err := j.Lives(t.Context(), store.Filter{})
		if err != nil || len(lives) != 1 || len(lives[0].Changes) != 2 {
			t.Fatal(lives, err)
		}
		if d := cmp.Diff(relaxed, lives[0].Ban, equalTimes); d != "" {
			t.Error(d)
		}
		was, now := lives[0].Changes[0], lives[0].Changes[1]
		if d := cmp.Diff(b, was, equalTimes); d != "" {
			t.Error(d)
		}
		if now.Strength != judge.Limited || now.Reason != relaxed.Reason || !now.Since.After(b.Since) {
			t.Errorf("it became %+v", now)
		}
		rows, err := j.Standing(t.Context(), func(int) {})
		if d := cmp.Diff([]respond.InForce{{Ban: relaxed, Host: b.Prefix.Addr()}}, rows, equalTimes); d != "" || err != nil {
			t.Error(d, err)
		}
	}
	stop()
	j, _, _ = running(t, Options{Path: path})
	rows, err := j.Standing(t.Context(), func(int) {})
	if d := cmp.Diff([]respond.InForce{{Ban: relaxed, Host: b.Prefix.Addr()}}, rows, equalTimes); d != "" || err != nil {
		t.Error(d, err)
	}
}
