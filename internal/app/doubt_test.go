package app

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/view/log"
)

// Nobody is banned before the names in the ignore file have been asked: whoever turns
// out to have one of them is ignored, others are banned when the answers are there, or
// after two seconds without.
func TestDoubts(t *testing.T) {
	checker, scanner := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	for _, c := range []struct {
		name    string
		awaited bool          // ask says that answers are to be expected
		answers time.Duration // when they are there; 0: never
		end     bool          // the daemon ends before that
		want    [2]string     // "ignored" or "banned", of the checker and of the scanner
		after   time.Duration // when that is written
	}{
		{"answered", true, 300 * time.Millisecond, false, [2]string{"ignored", "banned"}, 300 * time.Millisecond},
		{"not answered", true, 0, false, [2]string{"banned", "banned"}, doubtLimit},
		{"nobody to ask", false, 0, false, [2]string{"banned", "banned"}, 0},
		{"the end", true, 0, true, [2]string{"banned", "banned"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out transcript
				lines := log.New(log.Options{Format: config.Log2x, Stdout: &out, Stderr: &out})
				record := recording(lines, &problems{})
				responder := respond.New(nil, nil, respond.Plan{}, record)
				asked := 0
				d := &decider{
					queue: newQueue(), hits: make(chan detect.Sighting), last: make(chan struct{}), ended: make(chan struct{}),
					do: make(chan func()), settled: make(chan struct{}, 1), revoke: func(context.Context, netip.Addr) {}, freshen: func() {},
					responder: responder, record: record, answers: true,
					judge: judge.New(judge.Policy{BlockTCP: config.BlockBan, BanUnverified: time.Minute}, judge.NewTrust(judge.TrustFrom{}), nobodyIsPeer{}, responder),
					ask:   func() bool { asked++; return c.awaited },
				}
				ended := make(chan error, 1)
				go func() { ended <- d.run(t.Context()) }()
				for _, src := range []netip.Addr{checker, scanner, checker} {
					d.queue.put(&detect.Sighting{Src: src, Dst: here, DstPort: 1, Proto: decode.ProtoTCP, Kind: detect.KindSYN, Flags: decode.SYN, Triggered: true})
				}
				synctest.Wait()
				waiting := func() int {
					n := make(chan int, 1)
					d.set(func() { n <- len(d.waiting) })
					return <-n
				}
				if n := waiting(); c.awaited && (n != 3 || asked != 1 || out.String() != "") {
					t.Errorf("%d wait, asked %d times, written: %s", n, asked, out.String())
				}
				if c.answers > 0 {
					time.Sleep(c.answers)
					d.set(func() {
						d.judge.SetTrust(judge.NewTrust(judge.TrustFrom{Names: map[netip.Addr]string{checker: "uptime.example.net"}}))
					})
					touch(d.settled)
				} else if !c.end {
					time.Sleep(c.after)
				}
				synctest.Wait()
				if !c.end && waiting() > 0 {
					t.Error("somebody waits still")
				}
				close(d.last)
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if err := lines.Close(); err != nil {
					t.Error(err)
				}
				for i, src := range []netip.Addr{checker, scanner} {
					got := "banned"
					for line := range strings.Lines(out.String()) {
						if strings.Contains(line, "["+src.String()+"]") && strings.Contains(line, "ignored: [true]") {
							got = "ignored"
						}
					}
					if got != c.want[i] {
						t.Errorf("%s is %s, want %s:\n%s", src, got, c.want[i], out.String())
					}
				}
				if n := strings.Count(out.String(), "Scan from: ["); n != 3 {
					t.Errorf("%d lines for 3 sightings", n)
				}
			})
		})
	}
}

// What waits is bounded: a flood is decided.
func TestDoubtsBounded(t *testing.T) {
	d := &decider{ask: func() bool { return true }, overdue: time.NewTimer(time.Hour)}
	defer d.overdue.Stop()
	v := judge.Verdict{Strength: judge.Soft}
	for range maxDoubts {
		if !d.doubts(&detect.Sighting{}, false, &v) {
			t.Fatal("no room")
		}
	}
	if d.doubts(&detect.Sighting{}, false, &v) {
		t.Error("one more than there is room for")
	}
	v.Strength = judge.Nothing
	d.waiting = nil
	if d.doubts(&detect.Sighting{}, false, &v) {
		t.Error("nothing is to be done about him, and he waits")
	}
}

// transcript is what the log's own goroutine has written.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// nobodyIsPeer has no connections.
type nobodyIsPeer struct{}

func (nobodyIsPeer) Has(netip.Addr) bool   { return false }
func (nobodyIsPeer) Any(netip.Prefix) bool { return false }
