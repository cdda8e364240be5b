package textfile

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

func record(at time.Time) *store.Record {
	return &store.Record{
		Verdict: judge.Verdict{Sighting: detect.Sighting{
			Time: at.UnixNano(), Src: netip.MustParseAddr("10.77.0.2"), DstPort: 1, Proto: decode.ProtoTCP,
			Kind: detect.KindSYN, IPOptions: decode.No, Triggered: true,
		}},
		Outcome: respond.Outcome{},
	}
}

func openHistory(t testing.TB, path string) *History {
	t.Helper()
	h, err := OpenHistory(path, config.Log2x)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func flush(t testing.TB, h *History, recs ...*store.Record) {
	t.Helper()
	for _, r := range recs {
		h.Append(r)
	}
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestHistoryLine(t *testing.T) {
	at := time.Date(2026, 11, 21, 0, 4, 38, 815_999_999, time.Local)
	path := filepath.Join(t.TempDir(), "a", "b", "history")
	flush(t, openHistory(t, path), record(at))
	want := at.Format("2006-01-02T15:04:05.000-0700") + " Scan from: [10.77.0.2] (10.77.0.2) protocol: [TCP] port: [1] " +
		"type: [TCP SYN/Normal scan] IP opts: [not set] ignored: [false] triggered: [true] noblock: [true] blocked: [false]\n"
	if got := content(t, path); got != want {
		t.Errorf("line:\n got %q\nwant %q", got, want)
	}
	// The expression that PortSentry 2.x ships for fail2ban.
	if !regexp.MustCompile(`^[^ ]* Scan from: \[10\.77\.0\.2\]`).MatchString(content(t, path)) {
		t.Error("the 2.x fail2ban filter does not match")
	}
	for p, mode := range map[string]os.FileMode{path: 0o640, filepath.Dir(path): 0o755} {
		if fi, err := os.Stat(p); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v; want %v", p, fi.Mode(), err, mode)
		}
	}
}

// In the form of 1.x the history has a line for each newly blocked host and for
// nothing else.
func TestHistoryLine1x(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h, err := OpenHistory(path, config.Log1x)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1795218968, 900_000_000)
	blocked := func(host, name string, port uint16, proto uint8) *store.Record {
		r := record(at)
		s := &r.Verdict.Sighting
		s.Src, s.DstPort, s.Proto = netip.MustParseAddr(host), port, proto
		r.Verdict.Block, r.Verdict.Strength = config.BlockBan, judge.Soft
		r.Name, r.Outcome.Blocked = name, true
		return r
	}
	again := blocked("10.77.0.2", "", 1, decode.ProtoTCP)
	again.Outcome.Already = true
	failed := blocked("10.77.0.2", "", 1, decode.ProtoTCP)
	failed.Outcome.Blocked = false
	h.Append(record(at)) // BLOCK_TCP=0
	h.Append(failed)
	h.Append(blocked("10.77.0.2", "", 1, decode.ProtoTCP))
	h.Append(again)
	h.Append(blocked("fd77::2", "scan.example", 7, decode.ProtoUDP))
	h.BlockedLate(blocked("10.77.0.3", "10.77.0.9", 7, decode.ProtoUDP)) // a name that is no name
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	when := "1795218968 - " + at.Format("01/02/2006 15:04:05")
	want := when + " Host: 10.77.0.2/10.77.0.2 Port: 1 TCP Blocked\n" +
		when + " Host: scan.example/fd77::2 Port: 7 UDP Blocked\n" +
		when + " Host: 10.77.0.3/10.77.0.3 Port: 7 UDP Blocked\n"
	got := content(t, path)
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if st := h.Stats(); st.Lines != 3 || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", fi.Mode())
	}
	// The filter that Debian ships for fail2ban, which takes the date off the
	// front, and the one of the 1.2.x branch.
	debian := regexp.MustCompile(`/(?P<HOST>[0-9a-f.:]+) Port: [0-9]+ (TCP|UDP) Blocked$`)
	branch := regexp.MustCompile(`^\d* - \d{2}/\d{2}/\d{4} \d{2}:\d{2}:\d{2} Host: (\S+)`)
	hosts := []string{"10.77.0.2", "fd77::2", "10.77.0.3"}
	for i, line := range strings.Split(strings.TrimSpace(got), "\n") {
		if m := debian.FindStringSubmatch(line); m == nil || m[1] != hosts[i] {
			t.Errorf("Debian's filter finds %q in %q", m, line)
		}
		if !branch.MatchString(line) {
			t.Errorf("the filter of 1.2.x does not match %q", line)
		}
	}
}

// A history in the form of 2.x has no lines of 1.x.
func TestHistoryForms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := openHistory(t, path)
	h.BlockedLate(record(time.Now()))
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	named := record(time.Now())
	named.Name = "x) protocol: [UDP]\n"
	flush(t, h, named)
	if got := content(t, path); strings.Count(got, "\n") != 1 || !strings.Contains(got, " Scan from: [10.77.0.2] (10.77.0.2) protocol: [TCP] ") {
		t.Errorf("got %q", got)
	}
}

func TestHistoryTimeBeforeEpoch(t *testing.T) {
	h := new(History)
	for _, ns := range []int64{-1, -1e9, -1_500_000_000, 0, 1, 1<<63 - 1, -1 << 63} {
		want := time.Unix(0, ns).Format("2006-01-02T15:04:05.000-0700 ")
		if got := string(h.appendTime(nil, ns)); got != want {
			t.Errorf("%d: %q, want %q", ns, got, want)
		}
	}
}

func TestHistoryIsNeverTruncated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	old := strings.Repeat("an old line\n", 3)
	if err := os.WriteFile(path, []byte(old+"half a li"), 0o600); err != nil {
		t.Fatal(err)
	}
	flush(t, openHistory(t, path), record(time.Now()))
	got := content(t, path)
	if rest, ok := strings.CutPrefix(got, old+"half a li\n20"); !ok || strings.Count(rest, "\n") != 1 {
		t.Errorf("got %q", got)
	}
}

func TestHistoryRefusesLinksAndPipes(t *testing.T) {
	dir := t.TempDir()
	link, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenHistory(link, config.Log2x); !errors.Is(err, unix.ELOOP) {
		t.Errorf("link: %v", err)
	}
	if _, err := OpenHistory(pipe, config.Log1x); err == nil {
		t.Error("a pipe was opened")
	}
	flush(t, openHistory(t, os.DevNull), record(time.Now()))
}

func TestHistoryFollowsRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "history")
		h := openHistory(t, path)
		flush(t, h, record(time.Now()))
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		flush(t, h, record(time.Now())) // within the second: not looked
		time.Sleep(time.Second)
		flush(t, h, record(time.Now()))
		h.Close()
		if old, now := strings.Count(content(t, path+".1"), "\n"), strings.Count(content(t, path), "\n"); old != 2 || now != 1 {
			t.Errorf("%d lines in the old file, %d in the new, want 2 and 1", old, now)
		}
	})
}

// TestHistoryFullDisk fills a tiny file system.
func TestHistoryFullDisk(t *testing.T) {
	dir := smallDisk(t, "size=64k")
	path := filepath.Join(dir, "history")
	h := openHistory(t, path)
	const n = 2000
	for i := range n {
		if !h.Append(record(time.Now())) && i < n-1 {
			continue
		}
		if err := h.Flush(); err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	st := h.Stats()
	if err := h.Flush(); !errors.Is(err, unix.ENOSPC) || st.Errors < 2 || st.Lost == 0 || st.Lines+st.Lost != n {
		t.Errorf("%v, %+v", err, st)
	}
	before := content(t, path)
	if strings.HasSuffix(before, "\n") {
		t.Fatal("the disk was not filled in the middle of a line; the test shows nothing")
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	flush(t, h, record(time.Now()))
	after, ok := strings.CutPrefix(content(t, path), before+"\n")
	if !ok || strings.Count(after, "\n") != 1 || !strings.HasSuffix(after, "blocked: [false]\n") {
		t.Errorf("after the disk had room again: %q", after)
	}
	if got := h.Stats(); got.Lost != st.Lost || got.Lines != st.Lines+1 {
		t.Errorf("%+v, before %+v", got, st)
	}
}

// TestHistoryWaitsForNobody: what comes while the disk takes nothing waits as far as
// there is room, and is counted beyond that.
func TestHistoryWaitsForNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := openHistory(t, path)
	const n = 20_000
	for range n {
		h.Append(record(time.Now()))
	}
	st := h.Stats()
	if st.Lost == 0 || st.Lines != 0 || len(h.buf) > maxWaiting+1000 {
		t.Errorf("%d bytes wait, %+v", len(h.buf), st)
	}
	flush(t, h)
	if st = h.Stats(); st.Lines+st.Lost != n || uint64(strings.Count(content(t, path), "\n")) != st.Lines {
		t.Errorf("%+v", st)
	}
}

// smallDisk mounts a tmpfs for the test.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	needRoot(t, "mounts a file system")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root: it " + why)
	}
	t.Skip("needs root: it " + why)
}

func TestHistoryAllocatesNothing(t *testing.T) {
	h := openHistory(t, filepath.Join(t.TempDir(), "history"))
	rec := record(time.Now())
	h.Append(rec)
	if n := testing.AllocsPerRun(1000, func() { h.Append(rec) }); n != 0 {
		t.Errorf("%v allocations per line", n)
	}
}

func BenchmarkHistoryAppend(b *testing.B) {
	h := openHistory(b, filepath.Join(b.TempDir(), "history"))
	rec := record(time.Now())
	b.ReportAllocs()
	for b.Loop() {
		if h.Append(rec) {
			if err := h.Flush(); err != nil {
				b.Fatal(err)
			}
		}
		rec.Verdict.Sighting.Time += 10_000 // 100,000 a second
		if h.lines.Load()%200_000 == 199_999 {
			os.Truncate(h.path, 0) // bounded disk use
		}
	}
	h.Append(rec)
	b.SetBytes(int64(bytes.IndexByte(h.buf, '\n') + 1))
}
