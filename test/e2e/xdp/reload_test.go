package xdp_test

import (
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// scanning sends one trap hit after the other, each in the name of another source,
// until stop, which says how many there were.
func (s *stage) scanning() (stop func() int) {
	s.t.Helper()
	send := s.sender(s.Scanner)
	end, ended := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				ended <- n
				return
			case <-tick.C:
				if err := send.SendPacket(s.tcp(nth(nobody, n), 40000, trap, pktgen.SYN)); err != nil {
					s.t.Error(err)
					continue
				}
				n++
			}
		}
	}()
	return func() int {
		close(end)
		return <-ended
	}
}

// each checks that each of n sources of scanning was seen. While one way to read
// packets takes the place of another, both do.
func (d *daemon) each(n int) {
	d.s.t.Helper()
	lines := make(map[string]int)
	for _, l := range d.scans() {
		who, _, _ := strings.Cut(strings.TrimPrefix(l, harness.ScanPrefix), "]")
		lines[who]++
	}
	unseen, twice := 0, 0
	for i := range n {
		switch lines[nth(nobody, i).String()] {
		case 0:
			unseen++
		case 1:
		default:
			twice++
		}
	}
	d.s.t.Logf("%d sources: %d unseen, %d seen twice; %d frames of interfaces that were no longer watched", n, unseen, twice, d.counter("frames_unwatched_total"))
	if unseen > 0 || twice > n/3 {
		d.s.t.Errorf("%d of %d scans went unseen, %d were seen twice", unseen, n, twice)
	}
}

// CAPTURE and BLOCK_METHOD change while somebody scans: no scan goes unseen, no ban
// is lost, and the program is on the interface as long as it has something to do:
// also for bans of before.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(nil)
	d.waitHow(s.Host.Name, "XDP")
	scanner, scanner6 := nth(clients, 1), nth(clients6, 1)
	s.forge(s.tcp(scanner, 40000, trap, pktgen.SYN), s.tcp(scanner6, 40000, trap, pktgen.SYN))
	d.waitBan(scanner)
	d.waitBan(scanner6)
	client := s.open(nth(clients, 2), 443)
	stop := s.scanning()
	for _, step := range []struct {
		capture, method, how string
		program              bool
	}{
		{"afpacket", "auto", "AF_PACKET, XDP drops", true},
		{"auto", "auto", "XDP", true},
		{"auto", "nftables", "XDP", true},
		{"auto", "xdp", "XDP", true},
		{"afpacket", "xdp", "AF_PACKET, XDP drops", true},
		{"afpacket", "nftables", "AF_PACKET", true},
		{"auto", "nftables", "XDP", true},
		{"auto", "auto", "XDP", true},
	} {
		now := "CAPTURE=" + step.capture + ", BLOCK_METHOD=" + step.method
		d.reload(map[string]string{"CAPTURE": step.capture, "BLOCK_METHOD": step.method})
		d.waitHow(s.Host.Name, step.how)
		if id := onLink(t, s.Host); (id != "") != step.program {
			t.Errorf("%s: program %q is on the interface", now, id)
		}
		if _, ok := d.ban(scanner); !ok || s.gets(scanner) || s.gets(scanner6) {
			t.Errorf("%s: a ban of before is lost", now)
		}
		if err := echo(client); err != nil {
			t.Errorf("%s: a connection: %v", now, err)
		}
		d.healthy(now)
	}
	n := stop()
	s.seen(d)
	d.each(n)
	lab.Wait(t, soon, "everybody banned", func() bool { return len(d.bans()) == n+2 })
}

// The same where nobody is banned: then there is nothing for the program to do
// with CAPTURE="afpacket".
func TestReloadLogOnly(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	off := map[string]string{"BLOCK_TCP": "0", "BLOCK_UDP": "0"}
	d := s.start(off)
	d.waitHow(s.Host.Name, "XDP")
	stop := s.scanning()
	for range 3 {
		d.reload(with(off, "CAPTURE", "afpacket"))
		d.waitHow(s.Host.Name, "AF_PACKET")
		if id := onLink(t, s.Host); id != "" {
			t.Errorf("CAPTURE=afpacket: program %q is on the interface", id)
		}
		d.reload(off)
		d.waitHow(s.Host.Name, "XDP")
		if onLink(t, s.Host) == "" {
			t.Error("CAPTURE=auto: there is no program on the interface")
		}
	}
	n := stop()
	s.seen(d)
	d.each(n)
}
