package app

import (
	"testing"
	"time"

	"portsentry/internal/pktgen"
)

// Sixty switches are polled by datagrams for hours, eight more are off, and one answer in
// twenty is lost.
func TestWorldLostAnswers(t *testing.T) {
	t.Parallel()
	w := newCorpus(t)
	poller := w.anybody()
	for range 40 {
		for i := range 68 {
			p := to(w.stackSYN(poller, 161), machine(i))
			p.Proto, p.Payload, p.TCPOptions = pktgen.ProtoUDP, []byte("sysUpTime"), nil
			w.send(p)
			if i < 60 && w.rng.IntN(20) > 0 {
				w.send(pktgen.Packet{Src: p.Dst, Dst: p.Src, Proto: pktgen.ProtoUDP, SrcPort: 161, DstPort: p.SrcPort, TTL: 64, Payload: []byte("7")})
			}
			w.pass(50 * time.Millisecond)
		}
		w.pass(time.Minute)
	}
	w.noScan()
}

// The capture ends between the questions and the answers of somebody who looks after
// sixty machines, all of which answer equally fast.
func TestWorldEndOfCapture(t *testing.T) {
	t.Parallel()
	w := newCorpus(t)
	watcher := w.anybody()
	const answers = 500 * time.Microsecond
	for range 3 {
		var asked []pktgen.Packet
		for i := range 60 {
			p := to(w.stackSYN(watcher, 9100), machine(i))
			w.frame(w.bytes(p))
			asked = append(asked, p)
		}
		w.pass(answers)
		for _, p := range asked {
			w.frame(w.bytes(reply(p, pktgen.SYN|pktgen.ACK)))
		}
		w.pass(time.Second)
	}
	for i := range 60 {
		w.frame(w.bytes(to(w.stackSYN(watcher, 9256), machine(i))))
	}
	w.pass(answers * 6 / 5)
	w.frame(w.bytes(to(w.stackSYN(watcher, 9256), machine(60))))
	w.scans()
	if got := w.found(); len(got) > 0 {
		t.Errorf("%q", got)
	}
}
