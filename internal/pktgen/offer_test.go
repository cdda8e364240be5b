package pktgen

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestOffer(t *testing.T) {
	scanner, host := pair(t)
	send := openTestSender(t, scanner)
	p := Packet{Src: scanner.Addr4(), Dst: host.Addr4(), Proto: ProtoTCP, SrcPort: 1, DstPort: 1, Flags: FIN, FragmentSize: 8}
	before := received(t, host)
	if err := send.Offer(p, time.Second); err != nil {
		t.Fatal(err)
	}
	if n := received(t, host) - before; n != 3 { // 20 bytes, 8 at a time
		t.Errorf("%d frames arrived", n)
	}
	p.FragmentSize = 0
	for _, rule := range []string{
		"add table netdev eater",
		"add chain netdev eater out { type filter hook egress device " + scanner.Name + " priority 0; }",
		"add rule netdev eater out tcp flags == fin drop",
	} {
		if out, err := exec.Command("ip", append([]string{"netns", "exec", scanner.NS.Name(), "nft"}, strings.Fields(rule)...)...).CombinedOutput(); err != nil {
			t.Skipf("no rules on the way out: %v: %s", err, out)
		}
	}
	if err := send.Offer(p, 20*time.Millisecond); !errors.Is(err, ErrNotTaken) {
		t.Errorf("a packet that is dropped on the way out: %v", err)
	}
	p.Flags = SYN
	if err := send.Offer(p, 20*time.Millisecond); err != nil {
		t.Errorf("one that is not: %v", err)
	}
	p.Src = netip.Addr{}
	if err := send.Offer(p, 0); err == nil || errors.Is(err, ErrNotTaken) {
		t.Errorf("a packet without a source: %v", err)
	}
}
