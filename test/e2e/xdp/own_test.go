package xdp_test

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// floodSize is how many packets a flood has.
func floodSize() int {
	if os.Getenv("PORTSENTRY_LONG") != "" {
		return 2_000_000
	}
	return 200_000
}

// The ban of a real scanner cannot be pushed out by trap hits forged in the names
// of others, who is connected or connects goes on meanwhile, and each packet of
// the flood is accounted for: dropped by a ban, or a hit, and each hit a line or in
// a counter.
func TestOwnBanInAForgedFlood(t *testing.T) {
	for _, method := range []string{"xdp", "auto"} {
		t.Run(method, func(t *testing.T) { forgedFlood(t, method) })
	}
}

func forgedFlood(t *testing.T, method string) {
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(map[string]string{"BLOCK_METHOD": method})
	connected, opening, scanner := nth(clients, 1), nth(clients, 2), s.Scanner.Addr4()
	c := s.open(connected, 443)
	if report := s.nmap(scanner, "-r", "-p1-200"); openPorts(report) != "" {
		t.Errorf("nmap saw %s", report)
	}
	d.waitBan(scanner)
	s.seen(d)
	before := d.accounted()

	sn := s.listening()
	own := s.sender(s.Scanner)
	var sent pktgen.Sent
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		sent, err = s.send.Flood(t.Context(), s.tcp(nobody.Addr(), 40000, trap, pktgen.SYN), pktgen.FloodOpts{
			Count: floodSize(), SourcePrefix: nobody, Sources: 100_000,
		})
	}()
	probes, opened, slowest := 0, 0, time.Duration(0)
	for running := true; running; {
		check(t, own.SendPacket(s.tcp(scanner, uint16(30000+probes%10000), 443, pktgen.SYN)))
		probes++
		start := time.Now()
		// A SYN that the flood has left no room for on the wire is sent again after a
		// second (RFC 6298).
		if n, err := s.dial(opening, 80, 4*time.Second); err != nil {
			t.Errorf("a new connection during the flood: %v", err)
		} else {
			n.Close()
			opened, slowest = opened+1, max(slowest, time.Since(start))
		}
		if err := echo(c); err != nil {
			t.Errorf("the connection during the flood: %v", err)
			<-done
		}
		select {
		case <-done:
			running = false
		default:
		}
	}
	check(t, err)
	t.Logf("%d packets at %.0f/s, %d lost on the wire; meanwhile %d connections, the slowest after %v, and %d probes of the banned",
		sent.Frames, sent.Rate(), sent.Dropped, opened, slowest.Round(time.Millisecond), probes)
	if got := s.answers(sn)[scanner]; got > 0 {
		t.Errorf("%d of %d probes of the banned scanner were answered", got, probes)
	}
	if b, ok := d.ban(scanner); !ok || b.Dropped == nil || *b.Dropped < uint64(probes) {
		t.Errorf("its ban after the flood: %+v", b)
	}
	if s.gets(scanner) { // one SYN in so short a time
		t.Error("the scanner gets through")
	}
	for _, a := range []netip.Addr{connected, opening} {
		if b, ok := d.ban(a); ok {
			t.Errorf("%v has a ban: %+v", a, b)
		}
	}

	arrived := uint64(sent.Frames - sent.Dropped + probes + 1)
	var now account
	defer func() { t.Logf("of %d: %+v", arrived, now) }()
	lab.Wait(t, 20*time.Second, "every hit accounted for", func() bool {
		now = d.accounted().less(before)
		return now.told()+now.unwritten >= now.hits
	})
	if now.told() > now.hits {
		t.Errorf("%d hits, and %d are told of", now.hits, now.told())
	}
	if got := now.hits + now.dropped; got != arrived {
		t.Errorf("%d packets arrived, %d were dropped", arrived, got)
	}
}

// account is what became of packets that the program dropped.
type account struct {
	dropped, hits              uint64 // by a ban; because they hit a trap
	lines, late, counted, lost uint64 // of the hits: see told
	unwritten                  uint64 // lines for which the log had no room: not all of them of scans
}

// told is how many hits the daemon accounts for: in a scan line, as run into a ban
// of its own, as only counted, as lost.
func (a account) told() uint64 { return a.lines + a.late + a.counted + a.lost }

func (a account) less(b account) account {
	return account{
		dropped: a.dropped - b.dropped, hits: a.hits - b.hits, lines: a.lines - b.lines, late: a.late - b.late,
		counted: a.counted - b.counted, lost: a.lost - b.lost, unwritten: a.unwritten - b.unwritten,
	}
}

func (d *daemon) accounted() account {
	d.s.t.Helper()
	c := d.counters("kernel_dropped_soft_total", "kernel_dropped_limited_total", "kernel_dropped_full_total", "kernel_trap_hits_total",
		"dropped_by_ban_total", "probes_counted_total", "queue_lost_total", "log_lines_lost_total")
	lines, err := d.Out.Scans()
	check(d.s.t, err)
	return account{
		dropped: c["kernel_dropped_soft_total"] + c["kernel_dropped_limited_total"] + c["kernel_dropped_full_total"],
		hits:    c["kernel_trap_hits_total"],
		lines:   uint64(lines), late: c["dropped_by_ban_total"], counted: c["probes_counted_total"],
		lost: c["queue_lost_total"], unwritten: c["log_lines_lost_total"],
	}
}
