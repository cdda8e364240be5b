package pktgen

import "testing"

func TestTakeReturned(t *testing.T) {
	scanner, host := pair(t)
	if err := scanner.TakeReturned(); err != nil {
		t.Fatal(err)
	}
	link, err := scanner.NS.handle.LinkByIndex(scanner.Index)
	if err != nil {
		t.Fatal(err)
	}
	const driver = 1 // XDP_ATTACHED_DRV of linux/if_link.h
	if x := link.Attrs().Xdp; x == nil || !x.Attached || x.AttachMode != driver {
		t.Errorf("XDP: %+v", x)
	}
	// What is sent the usual way passes as before.
	before := received(t, scanner)
	send := openTestSender(t, host)
	if err := send.SendPacket(Packet{Src: host.Addr4(), Dst: scanner.Addr4(), Proto: ProtoUDP, SrcPort: 1, DstPort: 1}); err != nil {
		t.Fatal(err)
	}
	if received(t, scanner) == before {
		t.Error("nothing arrives any more")
	}
}
