package afpacket

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
)

// The kernel lets through what the filter is for, and what arrives in the ring
// is what was sent, with or without tags.
func TestKernelFilter(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP, UDP: someUDP})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	for _, test := range cases {
		for _, tags := range []int{0, 1, 2} {
			if test.etherType == unix.ETH_P_8021Q && tags != 2 || len(test.packet) == 0 {
				continue
			}
			inner := test.etherType == unix.ETH_P_8021Q
			want, wantType := test.packet, test.etherType
			before := time.Now().UnixNano()
			switch {
			case tags == 0:
				n.packet(test.etherType, test.packet)
			case tags == 1:
				n.packet(unix.ETH_P_8021Q, tag(0x6005, test.etherType, test.packet))
			case inner:
				n.packet(unix.ETH_P_8021AD, tag(0x6005, unix.ETH_P_8021Q, test.packet))
			default:
				want, wantType = tag(7, test.etherType, test.packet), unix.ETH_P_8021Q
				n.packet(unix.ETH_P_8021AD, tag(0x6005, unix.ETH_P_8021Q, want))
			}
			n.marker()
			got := c.take()
			if test.want == 0 {
				if len(got) != 0 {
					t.Errorf("%s, %d tags: let through", test.name, tags)
				}
				continue
			}
			if len(got) != 1 {
				t.Errorf("%s, %d tags: %d frames", test.name, tags, len(got))
				continue
			}
			f := got[0]
			if f.EtherType != wantType || !bytes.Equal(f.Data, want[:min(len(want), test.want)]) {
				t.Errorf("%s, %d tags: EtherType %#x, data\n% x, want %#x\n% x", test.name, tags, f.EtherType, f.Data, wantType, want)
			}
			if f.HasVLAN != (tags > 0) || f.HasVLAN && f.VLAN != 0x6005 {
				t.Errorf("%s, %d tags: VLAN %v %#x", test.name, tags, f.HasVLAN, f.VLAN)
			}
			if f.IfIndex != n.recv || f.Link != capture.LinkNetwork || f.PacketType != capture.PacketHost || f.WireLen != len(want) {
				t.Errorf("%s, %d tags: frame %+v", test.name, tags, f)
			}
			if f.Time < before-int64(time.Second) || f.Time > time.Now().UnixNano()+int64(time.Second) {
				t.Errorf("%s: time %d", test.name, f.Time)
			}
		}
	}
}

// Tags whose first bits look like the version of the IP header behind them.
func TestKernelTagsLikeIP(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	for _, test := range []struct {
		tci, etherType uint16
		packet         []byte
	}{
		{0x4500, unix.ETH_P_IP, syn4(11)},
		{0x4005, unix.ETH_P_IP, syn4(11)},
		{0x6005, unix.ETH_P_IPV6, ipv6(src6, tcpProto, tcp(11, syn))},
	} {
		want := tag(test.tci, test.etherType, test.packet)
		n.packet(unix.ETH_P_8021Q, tag(5, unix.ETH_P_8021Q, want))
		n.marker()
		got := c.take()
		if len(got) != 1 || got[0].EtherType != unix.ETH_P_8021Q || !bytes.Equal(got[0].Data, want) {
			t.Errorf("inner tag %#x: %+v", test.tci, got)
		}
	}
}

func TestKernelSnapLength(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP, UDP: someUDP})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	for _, test := range []struct {
		etherType uint16
		packet    []byte
		want      int
	}{
		{unix.ETH_P_IP, ipv4(src4, udpProto, 0, nil, udp(8, 4000)), snapHeaders},
		{unix.ETH_P_IPV6, ipv6(src6, 60, extension(udpProto, udp(8, 4000))), snapWhole},
	} {
		n.packet(test.etherType, test.packet)
		n.marker()
		got := c.take()
		if len(got) != 1 || len(got[0].Data) != test.want || got[0].WireLen != len(test.packet) {
			t.Errorf("%d bytes: %+v", len(test.packet), got)
		}
	}
}

func TestKernelPacketTypes(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	for _, test := range []struct {
		to   []byte
		want capture.PacketType // PacketUnknown: does not arrive
	}{
		{macRecv, capture.PacketHost},
		{macAll, capture.PacketBroadcast},
		{macMany, capture.PacketMulticast},
		{macElse, capture.PacketUnknown},
	} {
		n.transmit(n.send, ethernet(test.to, unix.ETH_P_IP, syn4(11)))
		n.marker()
		got := c.take()
		if test.want == capture.PacketUnknown {
			if len(got) != 0 {
				t.Errorf("to % x: %+v", test.to, got)
			}
		} else if len(got) != 1 || got[0].PacketType != test.want {
			t.Errorf("to % x: %+v", test.to, got)
		}
	}
	// What recv sends is outgoing there, and comes in on send, unwatched.
	n.transmit(n.recv, ethernet(macSend, unix.ETH_P_IP, syn4(11)))
	n.marker()
	if got := c.take(); len(got) != 0 {
		t.Errorf("outgoing: %+v", got)
	}
}

// The loopback is an interface like any other to who names it, and each packet
// is seen once.
func TestKernelLoopback(t *testing.T) {
	for _, named := range []bool{false, true} {
		n := newTestNet(t)
		lo := n.up("lo")
		ring := n.open(Config{TCP: someTCP})
		want := 0
		if named {
			watch(t, ring, n.recv, lo)
			want = 1
		} else {
			watch(t, ring, n.recv)
		}
		c := collect(t, ring)
		n.transmit(lo, ethernet(make([]byte, 6), unix.ETH_P_IP, syn4(11)))
		n.marker()
		if got := c.take(); len(got) != want {
			t.Errorf("named %v: %+v", named, got)
		}
	}
}
