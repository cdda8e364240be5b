package ban_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

const floodRate = 100_000 // packets a second

// hits are one forged trap hit of each kind, "from" src.
func (s *stage) hits(src netip.Addr) []pktgen.Packet {
	all := []pktgen.Packet{s.udp(src, 40000, trap)}
	for _, kind := range probes {
		all = append(all, s.tcp(src, 40000, trap, kind.flags))
	}
	return append(all, s.tcp(src, 40001, trap, pktgen.ACK), s.tcp(src, 40002, trap, pktgen.FIN|pktgen.ACK))
}

// flood forges SYNs to the trap for a while and meanwhile calls f over and over.
// It returns how many packets reached the host.
func (s *stage) flood(src netip.Addr, during time.Duration, f func() error) int {
	s.t.Helper()
	var sent pktgen.Sent
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		sent, err = s.send.Flood(s.t.Context(), s.tcp(src, 1024, trap, pktgen.SYN), pktgen.FloodOpts{
			Count: int(during.Seconds() * floodRate), Rate: floodRate, VarySrcPort: true,
		})
	}()
	for running := true; running; {
		if err := f(); err != nil {
			s.t.Errorf("while forged packets from %v come in: %v", src, err)
			<-done
			break
		}
		select {
		case <-done:
			running = false
		default:
		}
	}
	check(s.t, err)
	s.t.Logf("%d packets \"from\" %v at %.0f/s, %d of them lost on the way", sent.Frames, src, sent.Rate(), sent.Dropped)
	return sent.Frames - sent.Dropped
}

// slowest keeps the longest of several times.
type slowest struct {
	time.Duration
	n, late int
}

// add notes one. A second is what it takes to send a lost SYN again (RFC 6298).
func (l *slowest) add(d time.Duration) {
	l.n, l.Duration = l.n+1, max(l.Duration, d)
	if d >= time.Second {
		l.late++
	}
}

func (l *slowest) String() string {
	return fmt.Sprintf("%d, the slowest in %v, %d with a lost SYN", l.n, l.Round(time.Millisecond), l.late)
}

// Nothing happens to those who are never acted on, whatever is forged in their
// names, and everything forged is accounted for.
func TestForgedFromTheProtected(t *testing.T) {
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	_, script := s.privateEtc(map[string]string{"resolv.conf": "nameserver " + resolver.Addr().String() + "\n"})
	d := s.startIn(script, nil)
	protected := map[string]netip.Addr{
		"gateway": gateway, "gateway, IPv6": gateway6, "resolver": resolver.Addr(), "ignored": nth(ignored, 7),
	}
	own := []netip.Addr{s.Host.Addr4(), s.Host.Addr6()}

	for _, a := range protected {
		s.forge(s.hits(a)...)
	}
	for _, a := range own {
		s.forge(s.hits(a)...)
	}
	s.seen(d)
	free := func(when string) {
		t.Helper()
		for who, a := range protected {
			if sets := append(s.banned(a), s.in(a, limitedSets)...); len(sets) > 0 {
				t.Errorf("%s, %s: in %v", who, when, sets)
			}
			if _, _, err := s.dial(a, 443, soon); err != nil {
				t.Errorf("%s, %s: %v", who, when, err)
			}
		}
		for _, a := range own {
			if sets := append(s.banned(a), s.in(a, limitedSets)...); len(sets) > 0 {
				t.Errorf("own address %v, %s: in %v", a, when, sets)
			}
			check(t, s.Host.NS.Do(func() error {
				c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, 443).String(), soon)
				if err == nil {
					c.Close()
				}
				return err
			}))
		}
		if bans := d.bans(); len(bans) > 0 {
			t.Errorf("%s: %+v", when, bans)
		}
	}
	free("after one packet of each kind")
	before := d.accounted()

	got := 0
	var took slowest
	all := make([]netip.Addr, 0, len(protected))
	for _, a := range protected {
		all = append(all, a)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	for _, a := range all {
		got += s.flood(a, floodTime()/time.Duration(len(all)), func() error {
			c, d, err := s.dial(a, 443, 3*time.Second)
			if err == nil {
				took.add(d)
				c.Close()
			}
			return err
		})
	}
	t.Logf("connections meanwhile: %v", &took)
	free("after the flood")
	d.waitAccounted(before, got)
}

// account is what became of packets to the trap.
type account struct{ itemised, ring, queue, unsure, lines uint64 }

func (a account) total() uint64 { return a.itemised + a.ring + a.queue + a.unsure + a.lines }

// accounted is what the daemon says of the packets to the trap so far.
func (d *daemon) accounted() account {
	d.t.Helper()
	st, err := d.Status(d.t.Context())
	check(d.t, err)
	get := func(name string) uint64 {
		v, ok := st.Counter(name)
		if !ok {
			d.t.Fatalf("status has no counter %s", name)
		}
		return v
	}
	a := account{
		itemised: get("dropped_by_ban_total"), ring: get("ring_lost_total"), queue: get("queue_lost_total"),
		unsure: get("unsure_total"), lines: get("log_lines_lost_total"),
	}
	lines, err := d.Out.Scans()
	check(d.t, err)
	a.itemised += uint64(lines)
	return a
}

// waitAccounted waits until count packets more than before are accounted for.
func (d *daemon) waitAccounted(before account, count int) {
	d.t.Helper()
	var now account
	defer func() {
		d.t.Logf("of %d packets: %d itemised or counted as dropped by our own ban; lost: ring %d, queue %d, not asked about %d, lines %d",
			count, now.itemised-before.itemised, now.ring-before.ring, now.queue-before.queue, now.unsure-before.unsure, now.lines-before.lines)
	}()
	lab.Wait(d.t, 30*time.Second, "every packet accounted for", func() bool {
		now = d.accounted()
		return now.total()-before.total() >= uint64(count)
	})
	if n := now.total() - before.total(); n != uint64(count) {
		d.t.Errorf("%d packets accounted for, and only %d came", n, count)
	}
}

// A peer with a connection is never cut off by packets in its name: connections
// and served ports go on, new connections succeed, and the other ports go silent.
func TestForgedFromPeers(t *testing.T) {
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	type peer struct {
		name string
		addr netip.Addr
		conn net.Conn
	}
	peers := []peer{
		{"opened before the daemon", nth(clients, 1), nil}, {"opened before the daemon, IPv6", nth(subnet6(1), 1), nil},
		{"opened after it", nth(clients, 2), nil}, {"opened after it, IPv6", nth(subnet6(2), 1), nil},
	}
	for i := range 2 {
		peers[i].conn = s.open(peers[i].addr, 443)
	}
	d := s.start(nil)
	for i := 2; i < 4; i++ {
		peers[i].conn = s.open(peers[i].addr, 443)
	}
	var took slowest
	good := func(p peer) error {
		if err := echo(p.conn, 1<<12); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		for _, port := range served {
			c, t, err := s.dial(p.addr, port, 1500*time.Millisecond)
			if err != nil {
				return fmt.Errorf("%s: a new connection to %d: %w", p.name, port, err)
			}
			took.add(t)
			c.Close()
		}
		return nil
	}
	verify := func(when string) {
		t.Helper()
		for _, p := range peers {
			if err := good(p); err != nil {
				t.Errorf("%s: %v", when, err)
			}
			got := s.answered(s.tcp(p.addr, 41000, 81, pktgen.SYN), s.tcp(p.addr, 41001, trap, pktgen.SYN), s.udp(p.addr, 41002, 4000))
			if len(got) > 0 {
				t.Errorf("%s, %s: ports that nobody serves answer: %+v", p.name, when, got)
			}
			if b := d.waitBan(p.addr); b.Strength != "limited" {
				t.Errorf("%s, %s: %+v", p.name, when, b)
			}
			if sets := s.banned(p.addr); len(sets) > 0 {
				t.Errorf("%s, %s: in %v", p.name, when, sets)
			}
		}
	}
	for _, p := range peers {
		s.forge(s.hits(p.addr)...)
		if err := good(p); err != nil {
			t.Errorf("at once: %v", err)
		}
	}
	verify("after one packet of each kind")
	t.Logf("new connections right behind the hits: %v", &took)
	took = slowest{}
	for _, p := range peers {
		s.flood(p.addr, floodTime()/time.Duration(len(peers)), func() error { return good(p) })
	}
	t.Logf("new connections during the floods: %v", &took)
	verify("after the flood")
}

// Whoever connected a moment ago is a peer already: what is forged in his name
// costs him one lost SYN at most.
func TestForgedFromWhoHasJustConnected(t *testing.T) {
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(nil)
	const peers = 20
	var mu sync.Mutex
	var took slowest
	var wg sync.WaitGroup
	for i := range peers {
		a := nth(clients, 100+i)
		c := s.open(a, 443)
		s.forge(s.hits(a)...)
		wg.Go(func() {
			_, d, err := s.dial(a, 80, 1500*time.Millisecond)
			if err != nil {
				t.Errorf("%v: a new connection: %v", a, err)
			}
			if err := echo(c, 1<<12); err != nil {
				t.Errorf("%v: %v", a, err)
			}
			mu.Lock()
			took.add(d)
			mu.Unlock()
		})
	}
	wg.Wait()
	t.Logf("new connections: %v", &took)
	for i := range peers {
		if b := d.waitBan(nth(clients, 100+i)); b.Strength != "limited" {
			t.Errorf("%+v", b)
		}
	}
}
