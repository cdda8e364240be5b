package ban_test

import (
	"net/netip"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// Two hundred attackers within 20 ms, each with a probe of the served port right
// behind its trap hit: nobody gets an answer, everybody is banned.
func TestTwoHundredAttackersAtOnce(t *testing.T) {
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(nil)
	const count = 200
	source := func(i int) netip.Addr { return nth(nobody, 1+i) }
	var frames [][]byte
	for i := range count {
		for _, p := range []pktgen.Packet{
			s.tcp(source(i), 40000, trap, pktgen.SYN),
			s.tcp(source(i), 40001, 443, pktgen.SYN),
		} {
			f, err := p.Frames(s.send.Link())
			check(t, err)
			frames = append(frames, f...)
		}
	}
	// Someone of the same network who hits no trap is answered.
	if got := s.answered(s.tcp(source(1000), 40001, 443, pktgen.SYN)); len(got) == 0 || !got[0].IsSYNACK() {
		t.Fatalf("an innocent got %+v", got)
	}
	sn := s.sniff()
	sent, err := s.send.Send(t.Context(), frames, float64(len(frames))/0.020)
	check(t, err)
	answers := 0
	all := sn.stop()
	for i := range count {
		answers += len(answersTo(all, source(i)))
	}
	start := time.Now()
	lab.Wait(t, soon, "200 bans", func() bool { return len(d.bans()) == count })
	inSet := make(map[netip.Addr]bool)
	for _, e := range s.sets()["soft4"] {
		inSet[e.addr] = true
	}
	t.Logf("%d attackers within %v: %d answers behind their hits, %d banned (%v later), %d in the kernel's set",
		count, sent.Took.Round(time.Millisecond), answers, len(d.bans()), time.Since(start).Round(time.Millisecond), len(inSet))
	if answers > 0 || len(inSet) != count {
		t.Errorf("%d answers, %d of %d in the set", answers, len(inSet), count)
	}
}
