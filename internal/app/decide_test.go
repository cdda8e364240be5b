package app

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/view/log"
)

// What is in the queue when nothing more comes in is decided and written, and a
// worker that is late for the stop finds no closed channel.
func TestStopDecidesWhatIsQueued(t *testing.T) {
	const queued = 3*batch + 7
	var out bytes.Buffer
	lines := log.New(log.Options{Format: config.Log2x, Stdout: &out, Stderr: &out})
	record := newRecorder(lines, &problems{})
	responder := respond.New(nil, nil, respond.Plan{}, record)
	d := &decider{
		queue: make(chan detect.Sighting, queued), hits: make(chan detect.Sighting), last: make(chan struct{}), ended: make(chan struct{}),
		responder: responder, record: record,
		judge: judge.New(judge.Policy{}, judge.NewTrust(judge.TrustFrom{}), asPeers{}, responder),
	}
	for i := range queued {
		d.queue <- detect.Sighting{
			Src: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), Dst: here, DstPort: 1,
			Proto: decode.ProtoTCP, Kind: detect.KindSYN, Flags: decode.SYN, Triggered: true,
		}
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
	select {
	case d.queue <- detect.Sighting{}:
	default:
		t.Error("the queue was not emptied")
	}
}
