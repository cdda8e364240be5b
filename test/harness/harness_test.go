package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"portsentry/internal/view"
)

// TestMain lets this binary stand in for portsentry.
func TestMain(m *testing.M) {
	switch os.Getenv("HARNESS_FAKE") {
	case "":
		os.Exit(m.Run())
	case "dies":
		fmt.Fprintln(os.Stderr, "bad.conf:1: no")
		os.Exit(1)
	}
	if slices.Contains(os.Args, "status") {
		fmt.Println(`{"version":"3","bans":2,"counters":[{"name":"a_total","help":"x","value":5,"loss":true}]}`)
		return
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	fmt.Println("Portsentry 3.0.0 (fake)")
	fmt.Println(ReadyLine)
	for i := range fakeLines {
		fmt.Printf("%s198.51.100.%d] and so on\n", ScanPrefix, i%256)
	}
	fmt.Print("no newline yet")
	<-stop
	if os.Getenv("HARNESS_FAKE") == "fails" {
		os.Exit(3)
	}
}

const fakeLines = 20_000

func fake(how string) Options {
	return Options{Binary: os.Args[0], Env: []string{"HARNESS_FAKE=" + how}, Config: map[string]string{"TCP_PORTS": "1"}}
}

func TestDaemon(t *testing.T) {
	d := MustStart(t, fake("works"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	n := 0
	_, err := d.WaitLine(ctx, func(line string) bool {
		if strings.HasPrefix(line, ScanPrefix) {
			n++
		}
		return n == fakeLines
	})
	if err != nil {
		t.Fatalf("after %d lines: %v", n, err)
	}
	if n, err := d.Out.Scans(); n != fakeLines || err != nil {
		t.Errorf("%d scans, %v", n, err)
	}
	lines, err := d.Out.Lines()
	if err != nil || len(lines) != fakeLines+2 || lines[1] != ReadyLine {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	u, err := d.Usage()
	if err != nil || u.Processes != 1 || u.RSS < 1<<20 || u.CPU <= 0 {
		t.Errorf("usage is %+v, %v", u, err)
	}
	if d.ReadyAfter <= 0 || d.PID() <= 0 {
		t.Errorf("ready after %v, PID %d", d.ReadyAfter, d.PID())
	}
	short, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := d.WaitLine(short, func(string) bool { return false }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a line that never comes: %v", err)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := d.WaitLine(ctx, func(string) bool { return false }); !errors.Is(err, ErrExited) {
		t.Errorf("a line of a dead daemon: %v", err)
	}
}

func TestStatus(t *testing.T) {
	d := MustStart(t, fake("works"))
	s, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := s.Counter("a_total"); v != 5 || !ok || s.Bans != 2 {
		t.Errorf("%+v", s)
	}
	if v, ok := s.Counter("b_total"); v != 0 || ok {
		t.Errorf("a counter that is not there: %d, %v", v, ok)
	}
}

func TestFailures(t *testing.T) {
	o := fake("dies")
	o.Dir = t.TempDir()
	if _, err := Start(t.Context(), o); !errors.Is(err, ErrExited) || !strings.Contains(err.Error(), "bad.conf:1") {
		t.Errorf("a daemon that dies: %v", err)
	}
	o = fake("fails")
	o.Dir = t.TempDir()
	d, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a daemon that fails to stop: %v", err)
	}
	d = MustStart(t, fake("works"))
	d.Kill() // and no complaint at the end
}

func TestWriteConfig(t *testing.T) {
	t.Setenv("PORTSENTRY_CAPTURE", "")
	path := filepath.Join(t.TempDir(), "c")
	if err := WriteConfig(path, map[string]string{"B": "1", "A": "x y"}); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	if d := cmp.Diff("A=\"x y\"\nB=\"1\"\n", string(b)); d != "" {
		t.Error(d)
	}
	if err := WriteConfig(path, map[string]string{"A": `say "x"`}); err == nil {
		t.Error("a quote in a value is no error")
	}
	t.Setenv("PORTSENTRY_CAPTURE", "afpacket")
	for _, c := range []struct{ in, want map[string]string }{
		{nil, map[string]string{"CAPTURE": "afpacket"}},
		{map[string]string{"A": "1"}, map[string]string{"A": "1", "CAPTURE": "afpacket"}},
		{map[string]string{"CAPTURE": "xdp"}, map[string]string{"CAPTURE": "xdp"}},
	} {
		if d := cmp.Diff(c.want, withCapture(c.in)); d != "" {
			t.Error(d)
		}
	}
}

func TestParseStat(t *testing.T) {
	for _, c := range []struct {
		in   string
		want stat
		ok   bool
	}{
		{"7 (portsentry) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 70 80 20 0", stat{1, 1500 * time.Millisecond}, true},
		{"7 (a) b (c)) S 42 7 7 0 -1 4194560 1 2 3 4 50 60 0 1 20 0", stat{42, 10 * time.Millisecond}, true},
		{"", stat{}, false},
		{"7 (x) S 1", stat{}, false},
		{"7 (x) S one 7 7 0 -1 4194560 1 2 3 4 50 60 70 80 20 0", stat{}, false},
	} {
		got, err := parseStat([]byte(c.in))
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %+v, %v", c.in, got, err)
		}
	}
}

func TestParsePss(t *testing.T) {
	for in, want := range map[string]int64{
		"0-1 ---p 0 00:00 0   [rollup]\nRss:\t9 kB\nPss:     2048 kB\nPss_Dirty:   4 kB\n": 2 << 20,
		"":       0,
		"\nPss:": 0,
	} {
		if got := parsePss([]byte(in)); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}

func TestParseMap(t *testing.T) {
	for in, want := range map[string]struct {
		id, size int64
		ok       bool
	}{
		"pos:\t0\nmap_type:\t1\nmemlock:\t4096\nmap_id:\t12\nfrozen:\t0\n": {12, 4096, true},
		"pos:\t0\nprog_id:\t3\nmemlock:\t4096\n":                           {0, 4096, false},
		"link_type:\tstruct_ops\nmap_id:\t12\n":                            {12, 0, false},
		"":                                                                 {},
	} {
		id, size, ok := parseMap([]byte(in))
		if id != want.id || size != want.size || ok != want.ok {
			t.Errorf("%q: %d, %d, %v", in, id, size, ok)
		}
	}
}

// TestUsageOfMaps holds a map open under two descriptors: it counts once.
func TestUsageOfMaps(t *testing.T) {
	before, err := usage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1 << 17})
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs CAP_BPF: %v", err)
		}
		t.Skipf("needs CAP_BPF: %v", err)
	}
	defer m.Close()
	again, err := m.Clone()
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	after, err := usage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if got := after.Maps - before.Maps; got < 1<<20 || got > 1<<20+1<<16 {
		t.Errorf("an array of 1 MiB is %d bytes", got)
	}
	if after.Memory() != after.RSS+after.Maps || after.RSS < 1<<20 {
		t.Errorf("usage is %+v", after)
	}
}

func TestTree(t *testing.T) {
	stats := map[int]stat{1: {}, 5: {ppid: 1}, 6: {ppid: 5}, 7: {ppid: 6}, 8: {ppid: 1}}
	got := tree(stats, 5)
	slices.Sort(got)
	if d := cmp.Diff([]int{5, 6, 7}, got); d != "" {
		t.Error(d)
	}
}

func ExampleStatus_Counter() {
	s := Status{view.Status{Counters: []view.Counter{{Name: "ring_lost_total", Value: 3}}}}
	fmt.Println(s.Counter("ring_lost_total"))
	// Output: 3 true
}
