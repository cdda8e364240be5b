package decode

import (
	"testing"

	"portsentry/internal/capture"
)

var macs = []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}

func tag(etherType, tci int) []byte { return cat(u16(etherType), u16(tci)) }

var snapHdr = []byte{0xaa, 0xaa, 3, 0, 0, 0}

func sll1(pktType, hardware, protocol int) []byte {
	return cat(u16(pktType), u16(hardware), u16(6), make([]byte, 8), u16(protocol))
}

func sll2(pktType, hardware, protocol int) []byte {
	return cat(u16(protocol), []byte{0, 0, 0, 0, 0, 42}, u16(hardware), []byte{byte(pktType), 6}, make([]byte, 8))
}

// linkRows are link headers and what Decode makes of an IP packet behind them.
var linkRows = []struct {
	name  string
	link  capture.Link
	hdr   []byte
	v6    bool
	want  Status
	vlans []uint16
	typ   capture.PacketType
}{
	{name: "ethernet", link: capture.LinkEthernet, hdr: cat(macs, u16(0x0800)), want: Complete},
	{name: "ethernet v6", link: capture.LinkEthernet, hdr: cat(macs, u16(0x86dd)), v6: true, want: Complete},
	{name: "arp", link: capture.LinkEthernet, hdr: cat(macs, u16(0x0806)), want: Unknown},
	{name: "802.1Q", link: capture.LinkEthernet, hdr: cat(macs, tag(0x8100, 0x6064), u16(0x0800)), want: Complete, vlans: []uint16{100}},
	{name: "priority tag", link: capture.LinkEthernet, hdr: cat(macs, tag(0x8100, 0xe000), u16(0x0800)), want: Complete, vlans: []uint16{0}},
	{name: "802.1ad", link: capture.LinkEthernet, hdr: cat(macs, tag(0x88a8, 5), tag(0x8100, 6), u16(0x86dd)), v6: true, want: Complete, vlans: []uint16{5, 6}},
	{name: "QinQ 9100", link: capture.LinkEthernet, hdr: cat(macs, tag(0x9100, 7), tag(0x8100, 8), u16(0x0800)), want: Complete, vlans: []uint16{7, 8}},
	{name: "three tags", link: capture.LinkEthernet, hdr: cat(macs, tag(0x8100, 1), tag(0x8100, 2), tag(0x8100, 3), u16(0x0800)), want: Unknown},
	{name: "SNAP", link: capture.LinkEthernet, hdr: cat(macs, u16(52), snapHdr, u16(0x0800)), want: Complete},
	{name: "SNAP behind tag", link: capture.LinkEthernet, hdr: cat(macs, tag(0x8100, 9), u16(52), snapHdr, u16(0x0800)), want: Complete, vlans: []uint16{9}},
	{name: "SNAP of a vendor", link: capture.LinkEthernet, hdr: cat(macs, u16(52), []byte{0xaa, 0xaa, 3, 0, 0, 0x0c}, u16(0x0800)), want: Unknown},
	{name: "SNAP in SNAP", link: capture.LinkEthernet, hdr: cat(macs, u16(52), snapHdr, u16(60)), want: Unknown},
	{name: "spanning tree", link: capture.LinkEthernet, hdr: cat(macs, u16(38), []byte{0x42, 0x42, 3}), want: Unknown},
	{name: "PPPoE", link: capture.LinkEthernet, hdr: cat(macs, u16(0x8864), []byte{0x11, 0, 0, 1, 0, 46, 0, 0x21}), want: Complete},
	{name: "PPPoE v6", link: capture.LinkEthernet, hdr: cat(macs, u16(0x8864), []byte{0x11, 0, 0, 1, 0, 66, 0, 0x57}), v6: true, want: Complete},
	{name: "PPPoE version 2", link: capture.LinkEthernet, hdr: cat(macs, u16(0x8864), []byte{0x12, 0, 0, 1, 0, 46, 0, 0x21}), want: Unknown},
	{name: "cooked to us", link: capture.LinkSLL, hdr: sll1(0, 1, 0x0800), want: Complete, typ: capture.PacketHost},
	{name: "cooked v6 out", link: capture.LinkSLL, hdr: sll1(4, 772, 0x86dd), v6: true, want: Complete, typ: capture.PacketOutgoing},
	{name: "cooked PPP", link: capture.LinkSLL, hdr: sll1(0, 512, 0x0800), want: Complete, typ: capture.PacketHost},
	{name: "cooked VLAN", link: capture.LinkSLL, hdr: cat(sll1(1, 1, 0x8100), u16(33), u16(0x0800)), want: Complete, typ: capture.PacketBroadcast, vlans: []uint16{33}},
	{name: "cooked LLC", link: capture.LinkSLL, hdr: cat(sll1(3, 1, 4), snapHdr, u16(0x0800)), want: Complete, typ: capture.PacketOtherHost},
	{name: "cooked netlink", link: capture.LinkSLL, hdr: sll1(0, 824, 0x0800), want: Unknown, typ: capture.PacketHost},
	{name: "cooked, odd type", link: capture.LinkSLL, hdr: sll1(260, 1, 0x0800), want: Complete},
	{name: "cooked2", link: capture.LinkSLL2, hdr: sll2(2, 1, 0x0800), want: Complete, typ: capture.PacketMulticast},
	{name: "cooked2 v6", link: capture.LinkSLL2, hdr: sll2(0, 1, 0x86dd), v6: true, want: Complete, typ: capture.PacketHost},
	{name: "cooked2 VLAN", link: capture.LinkSLL2, hdr: cat(sll2(0, 1, 0x88a8), u16(34), u16(0x0800)), want: Complete, typ: capture.PacketHost, vlans: []uint16{34}},
	{name: "raw", link: capture.LinkRaw, want: Complete},
	{name: "raw v6", link: capture.LinkRaw, v6: true, want: Complete},
	{name: "null little-endian", link: capture.LinkNull, hdr: []byte{2, 0, 0, 0}, want: Complete},
	{name: "null big-endian", link: capture.LinkNull, hdr: []byte{0, 0, 0, 2}, want: Complete},
	{name: "null Linux", link: capture.LinkNull, hdr: []byte{10, 0, 0, 0}, v6: true, want: Complete},
	{name: "null OpenBSD", link: capture.LinkNull, hdr: []byte{0, 0, 0, 24}, v6: true, want: Complete},
	{name: "null FreeBSD", link: capture.LinkNull, hdr: []byte{28, 0, 0, 0}, v6: true, want: Complete},
	{name: "null macOS", link: capture.LinkNull, hdr: []byte{30, 0, 0, 0}, v6: true, want: Complete},
	{name: "null IPX", link: capture.LinkNull, hdr: []byte{23, 0, 0, 0}, want: Unknown},
	{name: "loop", link: capture.LinkLoop, hdr: []byte{0, 0, 0, 2}, want: Complete},
	{name: "loop, wrong order", link: capture.LinkLoop, hdr: []byte{2, 0, 0, 0}, want: Unknown},
	{name: "PPP", link: capture.LinkPPP, hdr: []byte{0xff, 3, 0, 0x21}, want: Complete},
	{name: "PPP without address", link: capture.LinkPPP, hdr: []byte{0, 0x57}, v6: true, want: Complete},
	{name: "PPP compressed", link: capture.LinkPPP, hdr: []byte{0x21}, want: Complete},
	{name: "PPP both", link: capture.LinkPPP, hdr: []byte{0xff, 3, 0x57}, v6: true, want: Complete},
	{name: "PPP LCP", link: capture.LinkPPP, hdr: []byte{0xff, 3, 0xc0, 0x21}, want: Unknown},
	{name: "no such link", link: capture.LinkUnknown, want: Unknown},
}

func TestLinks(t *testing.T) {
	for _, r := range linkRows {
		t.Run(r.name, func(t *testing.T) {
			ip := syn4()
			if r.v6 {
				ip = syn6()
			}
			b := cat(r.hdr, ip, []byte("padding of the link"))
			p, st := decodeOne(&capture.Frame{Time: 77, Data: b, WireLen: len(b), Link: r.link})
			if st != r.want {
				t.Fatalf("status %d, want %d", st, r.want)
			}
			if p.Time != 77 || p.PacketType != uint8(r.typ) {
				t.Errorf("time %d, packet type %d", p.Time, p.PacketType)
			}
			if r.link == capture.LinkSLL2 && p.IfIndex != 42 {
				t.Errorf("interface %d, want that of the header", p.IfIndex)
			}
			if st != Complete {
				return
			}
			checkSYN(t, &p, r.v6)
			if int(p.VLANs) != len(r.vlans) {
				t.Fatalf("%d tags, want %d", p.VLANs, len(r.vlans))
			}
			for i, id := range r.vlans {
				if p.VLAN[i] != id {
					t.Errorf("tag %d is %d, want %d", i, p.VLAN[i], id)
				}
			}
		})
	}
}

// checkSYN compares p with what syn4 and syn6 build.
func checkSYN(t *testing.T, p *Probe, v6 bool) {
	t.Helper()
	src, dst := src4, dst4
	if v6 {
		src, dst = src6, dst6
	}
	if p.Src != src || p.Dst != dst || p.IsIPv6() != v6 {
		t.Errorf("addresses %v, %v", p.Src, p.Dst)
	}
	if p.Proto != ProtoTCP || p.SrcPort != 40000 || p.DstPort != 11 || p.Flags != SYN {
		t.Errorf("proto %d, ports %d, %d, flags %#x", p.Proto, p.SrcPort, p.DstPort, p.Flags)
	}
	if p.Seq != 0x01020304 || p.Ack != 0x05060708 || p.Window != 1024 || p.Urgent != 7 || p.MSS != 1460 || p.TCPOptionsLen != 4 {
		t.Errorf("TCP header %+v", *p)
	}
	if p.Marks&^HasExtHeaders != 0 || p.PayloadLen != 0 {
		t.Errorf("marks %#x, payload %d", p.Marks, p.PayloadLen)
	}
}

func TestNetworkTags(t *testing.T) {
	tagged := func(n int) []byte {
		b := []byte{}
		for i := range n {
			next := 0x8100
			if i == n-1 {
				next = 0x0800
			}
			b = cat(b, u16(10+i), u16(next))
		}
		return cat(b, syn4())
	}
	rows := []struct {
		name  string
		f     capture.Frame
		want  Status
		vlans []uint16
	}{
		{"tag beside the frame", capture.Frame{Data: syn4(), EtherType: 0x0800, VLAN: 0x2007, HasVLAN: true}, Complete, []uint16{7}},
		{"second tag in the frame", capture.Frame{Data: tagged(1), EtherType: 0x8100, VLAN: 7, HasVLAN: true}, Complete, []uint16{7, 10}},
		{"both in the frame", capture.Frame{Data: tagged(2), EtherType: 0x88a8}, Complete, []uint16{10, 11}},
		{"one too many", capture.Frame{Data: tagged(2), EtherType: 0x88a8, VLAN: 7, HasVLAN: true}, Unknown, []uint16{7, 10}},
		{"VLAN without HasVLAN", capture.Frame{Data: syn4(), EtherType: 0x0800, VLAN: 7}, Complete, nil},
		{"ARP", capture.Frame{Data: syn4(), EtherType: 0x0806}, Unknown, nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			r.f.Link, r.f.PacketType, r.f.IfIndex = capture.LinkNetwork, capture.PacketBroadcast, 9
			p, st := decodeOne(&r.f)
			if st != r.want || int(p.VLANs) != len(r.vlans) {
				t.Fatalf("status %d, %d tags; want %d, %v", st, p.VLANs, r.want, r.vlans)
			}
			for i, id := range r.vlans {
				if p.VLAN[i] != id {
					t.Errorf("tag %d is %d, want %d", i, p.VLAN[i], id)
				}
			}
			if p.PacketType != uint8(capture.PacketBroadcast) || p.IfIndex != 9 {
				t.Errorf("packet type %d, interface %d", p.PacketType, p.IfIndex)
			}
		})
	}
}
