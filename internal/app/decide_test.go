package app

import (
	"bytes"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store/sqlite"
	"portsentry/internal/view/log"
)

// What is in the queue when nothing more comes in is decided and written, and a
// worker that is late for the stop finds no closed channel.
func TestStopDecidesWhatIsQueued(t *testing.T) {
	const queued = 3*batch + 7
	var out bytes.Buffer
	lines := log.New(log.Options{Format: config.Log2x, Stdout: &out, Stderr: &out})
	record := recording(lines, &problems{})
	responder := respond.New(nil, nil, respond.Plan{}, record)
	d := &decider{
		queue: newQueue(), hits: make(chan detect.Sighting), last: make(chan struct{}), ended: make(chan struct{}),
		responder: responder, record: record,
		judge: judge.New(judge.Policy{}, judge.NewTrust(judge.TrustFrom{}), asPeers{}, responder),
	}
	for i := range queued {
		d.queue.put(&detect.Sighting{
			Src: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), Dst: here, DstPort: 1,
			Proto: decode.ProtoTCP, Kind: detect.KindSYN, Flags: decode.SYN, Triggered: true,
		})
	}
	close(d.last)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := lines.Close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "Scan from: ["); n != queued {
		t.Errorf("%d lines for %d sightings", n, queued)
	}
	if b := d.queue.take(); b != nil {
		t.Errorf("%d are left in the queue", b.n)
	}
}

// lineCount counts the lines that are written to it.
type lineCount struct{ atomic.Int64 }

func (c *lineCount) Write(b []byte) (int, error) {
	c.Add(int64(bytes.Count(b, []byte{'\n'})))
	return len(b), nil
}

// A line that comes alone is written at once; those that come soon after one wait for
// each other, and not for long.
func TestLinesAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lineCount
		lines := log.New(log.Options{Format: config.Log2x, Stdout: &out})
		record := recording(lines, &problems{})
		responder := respond.New(nil, nil, respond.Plan{}, record)
		d := &decider{
			queue: newQueue(), hits: make(chan detect.Sighting), last: make(chan struct{}), ended: make(chan struct{}),
			responder: responder, record: record,
			judge: judge.New(judge.Policy{}, judge.NewTrust(judge.TrustFrom{}), asPeers{}, responder),
		}
		done := make(chan error)
		go func() { done <- d.run(t.Context()) }()
		written := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			if n := int(out.Load()); n != want {
				t.Errorf("%s: %d lines, want %d", when, n, want)
			}
		}
		probe := func() {
			d.queue.put(&detect.Sighting{
				Src: netip.MustParseAddr("203.0.113.9"), Dst: here, DstPort: 1,
				Proto: decode.ProtoTCP, Kind: detect.KindSYN, Flags: decode.SYN, Triggered: true,
			})
			synctest.Wait()
		}
		probe()
		written("alone", 1)
		time.Sleep(flushEvery / 2)
		probe()
		probe()
		written("soon after", 1)
		time.Sleep(flushEvery / 2)
		written("in time", 3)
		time.Sleep(flushEvery)
		probe()
		written("alone again", 4)
		close(d.last)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// recording is a recorder whose journal nobody writes down.
func recording(lines *log.Writer, p *problems) *recorder {
	r := newRecorder(lines, p, new(feed))
	r.journal = sqlite.Open(sqlite.Options{})
	return r
}
