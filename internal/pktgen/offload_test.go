package pktgen

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGRO(t *testing.T) {
	_, host := pair(t)
	for _, on := range []bool{true, false, true} {
		if err := host.GRO(on); err != nil {
			t.Fatal(err)
		}
		if got, err := host.ethtool(unix.ETHTOOL_GGRO, 0); err != nil || (got == 1) != on {
			t.Errorf("set to %v, read %d, %v", on, got, err)
		}
	}
	gone := &End{NS: host.NS, Name: "gone"}
	if err := gone.GRO(true); err == nil {
		t.Error("an interface that is not there: no error")
	}
}

// TestTaggedFramesArrive reads tagged frames at the other end. The kernel hands
// the outermost tag apart from the frame.
func TestTaggedFramesArrive(t *testing.T) {
	scanner, host := pair(t)
	s := openTestSender(t, scanner)
	var fd int
	err := host.NS.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, int(networkOrder(unix.ETH_P_ALL))); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, c := range []struct {
		vlans []uint16
		qinq  bool
		tpid  uint16
		inner string // EtherType and what follows it
	}{
		{[]uint16{5}, false, 0x8100, "\x08\x00"},
		{[]uint16{5}, true, 0x88a8, "\x08\x00"},
		{[]uint16{5, 7}, true, 0x88a8, "\x81\x00\x00\x07\x08\x00"},
		{[]uint16{5, 7}, false, 0x8100, "\x81\x00\x00\x07\x08\x00"},
	} {
		p := with(syn4(), func(p *Packet) { p.VLANs, p.QinQ = c.vlans, c.qinq })
		if err := s.SendPacket(p); err != nil {
			t.Fatal(err)
		}
		buf, oob := make([]byte, 128), make([]byte, 64)
		waitFor(t, func() bool {
			n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, 0)
			if err != nil {
				return false
			}
			messages, err := unix.ParseSocketControlMessage(oob[:oobn])
			if err != nil || len(messages) != 1 {
				t.Fatalf("control messages %v, %v", messages, err)
			}
			aux := messages[0].Data // struct tpacket_auxdata: vlan_tci at 16, vlan_tpid at 18
			tci, tpid := binary.NativeEndian.Uint16(aux[16:]), binary.NativeEndian.Uint16(aux[18:])
			if tci == 0 {
				return false // listener reports of the interface
			}
			if tci != 5 || tpid != c.tpid || !bytes.HasPrefix(buf[12:n], []byte(c.inner)) {
				t.Errorf("%v: tag %d of %04x, then %x", c, tci, tpid, buf[12:n])
			}
			return true
		})
	}
}

func TestTagProtocols(t *testing.T) {
	p := with(syn4(), func(p *Packet) { p.VLANs, p.QinQ = []uint16{5, 7}, true })
	b, err := p.AppendTo(nil, testLink)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]uint16{12: 0x88a8, 14: 5, 16: 0x8100, 18: 7, 20: 0x0800} {
		if got := binary.BigEndian.Uint16(b[at:]); got != want {
			t.Errorf("byte %d: %04x, want %04x", at, got, want)
		}
	}
}
