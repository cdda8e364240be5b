package ban_test

import (
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// A packet with a wrong checksum, which no host takes, hits a trap where nftables decides:
// its source is let in again at once, and not when a provisional ban ends. One that has
// hit a trap with a right one stays out, whatever else it sends.
func TestWrongChecksumIsTakenBack(t *testing.T) {
	for _, capture := range []string{"auto", "afpacket"} {
		t.Run(capture, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.serve(s.Host.NS, served...)
			d := s.start(map[string]string{"BLOCK_METHOD": "nftables", "CAPTURE": capture})
			wrong := func(i int, udp bool) {
				for _, src := range []pktgen.Packet{s.tcp(nth(clients, i), 40000, trap, pktgen.SYN), s.tcp(nth(subnet6(i), 1), 40000, trap, pktgen.SYN)} {
					if udp {
						src = s.udp(src.Src, 40000, trap)
					}
					src.BadChecksum = true
					s.forge(src)
				}
			}
			wrong(1, false)
			wrong(2, true) // to connection tracking, where it is, such a datagram is none
			lab.Wait(t, soon, "bans taken back", func() bool {
				st, err := d.Status(t.Context())
				check(t, err)
				n, _ := st.Counter("provisional_revoked_total")
				return n >= 2
			})
			for i := 1; i <= 2; i++ {
				if _, took, err := s.dial(nth(clients, i), 443, 3*time.Second); err != nil || took > 2*time.Second {
					t.Errorf("let in after %v: %v", took, err)
				}
				if _, took, err := s.dial(nth(subnet6(i), 1), 443, 3*time.Second); err != nil || took > 2*time.Second {
					t.Errorf("let in after %v: %v", took, err)
				}
			}
			if bans, lines := d.bans(), d.scans(); len(bans)+len(lines) > 0 {
				t.Errorf("bans %+v, lines %q", bans, lines)
			}
			s.forge(s.tcp(nth(clients, 3), 40001, trap, pktgen.SYN))
			d.waitBan(nth(clients, 3))
			wrong(3, false)
			wrong(3, true)
			s.seen(d)
			if _, _, err := s.dial(nth(clients, 3), 443, 300*time.Millisecond); err == nil {
				t.Errorf("a banned source was let in for sending what no host takes: %+v", d.bans())
			}
		})
	}
}
