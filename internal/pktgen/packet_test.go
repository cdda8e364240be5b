package pktgen

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/ip4defrag"
	"github.com/gopacket/gopacket/layers"
)

var (
	testLink = &Link{
		Src: net.HardwareAddr{2, 0, 0, 0, 0, 1},
		Dst: net.HardwareAddr{2, 0, 0, 0, 0, 2},
	}
	src4, dst4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.7")
	src6, dst6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:ffff::7")
)

func syn4() Packet {
	return Packet{Src: src4, Dst: dst4, Proto: ProtoTCP, SrcPort: 40000, DstPort: 11, Flags: SYN, Seq: 7, Window: 1024}
}

func syn6() Packet {
	p := syn4()
	p.Src, p.Dst = src6, dst6
	return p
}

// with gives p after change.
func with(p Packet, change func(*Packet)) Packet {
	change(&p)
	return p
}

func udp(p *Packet)  { p.Proto, p.Flags, p.Payload = ProtoUDP, 0, []byte("odd") }
func sctp(p *Packet) { p.Proto, p.Flags = ProtoSCTP, 0 }

// badSums are the layers whose checksum is wrong, as gopacket computes it.
func badSums(t *testing.T, p gopacket.Packet) []string {
	t.Helper()
	for _, l := range p.Layers() {
		if l, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := l.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
		}
	}
	err, mismatches := p.VerifyChecksums()
	if err != nil {
		t.Fatal(err)
	}
	var bad []string
	for _, m := range mismatches {
		bad = append(bad, m.Layer.LayerType().String())
	}
	return bad
}

func layerNames(p gopacket.Packet) []string {
	var names []string
	for _, l := range p.Layers() {
		names = append(names, l.LayerType().String())
	}
	return names
}

func TestLayersAndChecksums(t *testing.T) {
	for _, c := range []struct {
		name   string
		packet Packet
		link   *Link
		layers []string
		bad    []string
	}{
		{"syn", syn4(), testLink, []string{"Ethernet", "IPv4", "TCP"}, nil},
		{"bare", syn4(), nil, []string{"IPv4", "TCP"}, nil},
		{"syn6", syn6(), testLink, []string{"Ethernet", "IPv6", "TCP"}, nil},
		{"bare6", syn6(), nil, []string{"IPv6", "TCP"}, nil},
		{"payload", with(syn4(), func(p *Packet) { p.Payload = []byte("abc") }), testLink, []string{"Ethernet", "IPv4", "TCP", "Payload"}, nil},
		{"tcp options", with(syn4(), func(p *Packet) { p.TCPOptions = []byte{2, 4, 5, 0xb4, 4, 2} }), testLink, []string{"Ethernet", "IPv4", "TCP"}, nil},
		{"ip options", with(syn4(), func(p *Packet) { p.IPOptions = []byte{7, 7, 4, 0, 0, 0, 0} }), testLink, []string{"Ethernet", "IPv4", "TCP"}, nil},
		{"udp", with(syn4(), udp), testLink, []string{"Ethernet", "IPv4", "UDP", "Payload"}, nil},
		{"udp6", with(syn6(), udp), testLink, []string{"Ethernet", "IPv6", "UDP", "Payload"}, nil},
		{"icmp", with(syn4(), func(p *Packet) { p.Proto = ProtoICMP }), testLink, []string{"Ethernet", "IPv4", "ICMPv4"}, nil},
		{"icmp6", with(syn6(), func(p *Packet) { p.Proto = ProtoICMPv6 }), testLink, []string{"Ethernet", "IPv6", "ICMPv6", "ICMPv6Echo"}, nil},
		{"sctp", with(syn4(), sctp), testLink, []string{"Ethernet", "IPv4", "SCTP", "SCTPInit"}, nil},
		{"vlans", with(syn4(), func(p *Packet) { p.VLANs = []uint16{10, 20} }), testLink, []string{"Ethernet", "Dot1Q", "Dot1Q", "IPv4", "TCP"}, nil},
		{"vlan", with(syn6(), func(p *Packet) { p.VLANs = []uint16{10} }), testLink, []string{"Ethernet", "Dot1Q", "IPv6", "TCP"}, nil},
		{"destination options", with(syn6(), func(p *Packet) { p.ExtHeaders = []ExtHeader{{DestOptions, 8}} }), testLink, []string{"Ethernet", "IPv6", "IPv6Destination", "TCP"}, nil},
		{"hop by hop 2048", with(syn6(), func(p *Packet) { p.ExtHeaders = []ExtHeader{{HopByHop, 2048}} }), testLink, []string{"Ethernet", "IPv6", "IPv6HopByHop", "TCP"}, nil},
		{"chain", with(syn6(), func(p *Packet) {
			p.ExtHeaders = []ExtHeader{{HopByHop, 8}, {Routing, 8}, {AuthHdr, 24}, {DestOptions, 16}}
		}), testLink, []string{"Ethernet", "IPv6", "IPv6HopByHop", "IPv6Routing", "IPSecAH", "IPv6Destination", "TCP"}, nil},
		{"bad ip sum", with(syn4(), func(p *Packet) { p.BadIPChecksum = true }), testLink, []string{"Ethernet", "IPv4", "TCP"}, []string{"IPv4"}},
		{"bad tcp sum", with(syn4(), func(p *Packet) { p.BadChecksum = true }), testLink, []string{"Ethernet", "IPv4", "TCP"}, []string{"TCP"}},
		{"bad udp sum", with(syn6(), func(p *Packet) { udp(p); p.BadChecksum = true }), testLink, []string{"Ethernet", "IPv6", "UDP", "Payload"}, []string{"UDP"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := c.packet.AppendTo([]byte("before"), c.link)
			if err != nil {
				t.Fatal(err)
			}
			b = bytes.TrimPrefix(b, []byte("before"))
			p := decode(t, b, c.link != nil)
			if d := cmp.Diff(c.layers, layerNames(p)); d != "" {
				t.Errorf("layers (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.bad, badSums(t, p)); d != "" {
				t.Errorf("bad checksums (-want +got):\n%s", d)
			}
		})
	}
}

func decode(t *testing.T, b []byte, ethernet bool) gopacket.Packet {
	t.Helper()
	first := layers.LayerTypeEthernet
	if !ethernet {
		first = layers.LayerTypeIPv4
		if b[0]>>4 == 6 {
			first = layers.LayerTypeIPv6
		}
	}
	p := gopacket.NewPacket(b, first, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("%x: %v", b, e.Error())
	}
	return p
}

func TestFields(t *testing.T) {
	p := Packet{
		Src: src4, Dst: dst4, Proto: ProtoTCP, SrcPort: 1, DstPort: 65535, Flags: 0x1ff,
		Seq: 1 << 31, Ack: 3, Window: 4, Urgent: 5, TTL: 255, IPID: 0xbeef, DF: true,
	}
	b, err := p.AppendTo(nil, testLink)
	if err != nil {
		t.Fatal(err)
	}
	got := decode(t, b, true)
	tcp := got.Layer(layers.LayerTypeTCP).(*layers.TCP)
	ip := got.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	if tcp.SrcPort != 1 || tcp.DstPort != 65535 || tcp.Seq != 1<<31 || tcp.Ack != 3 || tcp.Window != 4 || tcp.Urgent != 5 {
		t.Errorf("TCP is %+v", tcp)
	}
	for _, f := range []bool{tcp.FIN, tcp.SYN, tcp.RST, tcp.PSH, tcp.ACK, tcp.URG, tcp.ECE, tcp.CWR, tcp.NS} {
		if !f {
			t.Errorf("a flag is missing: %+v", tcp)
		}
	}
	if ip.TTL != 255 || ip.Id != 0xbeef || ip.Flags != layers.IPv4DontFragment {
		t.Errorf("IP is %+v", ip)
	}
	if b, _ = (&Packet{Src: src4, Dst: dst4, Proto: 253, Payload: []byte("x")}).AppendTo(nil, nil); b[8] != 64 || string(b[20:]) != "x" {
		t.Errorf("protocol 253 with default TTL is %x", b)
	}
}

// gopacket verifies no CRC32c, but computes one when it serialises.
func TestSCTPChecksum(t *testing.T) {
	p := with(syn4(), sctp)
	b, err := p.AppendTo(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := decode(t, b, false).Layer(layers.LayerTypeSCTP).(*layers.SCTP)
	buf := gopacket.NewSerializeBuffer()
	again := *s
	again.Checksum = 0
	err = gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, &again, gopacket.Payload(s.Payload))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(buf.Bytes(), b[20:]); d != "" {
		t.Errorf("SCTP (-gopacket +ours):\n%s", d)
	}
}

func TestFragmentsIPv4(t *testing.T) {
	for _, size := range []int{8, 16, 24, 1024} {
		p := with(syn4(), func(p *Packet) { p.Payload = make([]byte, 13); p.IPID = 9 })
		whole, _ := p.AppendTo(nil, nil)
		p.FragmentSize = size
		frames, err := p.Frames(testLink)
		if err != nil {
			t.Fatal(err)
		}
		if want := (20 + 13 + size - 1) / size; len(frames) != want {
			t.Fatalf("size %d: %d frames, want %d", size, len(frames), want)
		}
		defrag := ip4defrag.NewIPv4Defragmenter()
		var out *layers.IPv4
		for _, f := range frames {
			in := decodeFragment(f)
			if len(frames) == 1 {
				out = in
			} else if out, err = defrag.DefragIPv4(in); err != nil {
				t.Fatal(err)
			}
		}
		if out == nil || !bytes.Equal(out.Payload, whole[20:]) {
			t.Errorf("size %d: put together: %+v", size, out)
		}
	}
}

func decodeFragment(f []byte) *layers.IPv4 {
	p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
	return p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
}

func TestFragmentsIPv6(t *testing.T) {
	p := with(syn6(), func(p *Packet) {
		p.ExtHeaders = []ExtHeader{{HopByHop, 8}, {DestOptions, 8}}
		p.IPID = 0xfeedbeef
	})
	whole, _ := p.AppendTo(nil, nil)
	p.FragmentSize = 8
	frames, err := p.Frames(nil)
	if err != nil {
		t.Fatal(err)
	}
	var body []byte
	for i, f := range frames {
		got := gopacket.NewPacket(f, layers.LayerTypeIPv6, gopacket.Default)
		fr := got.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
		if int(fr.FragmentOffset) != i || fr.MoreFragments != (i < len(frames)-1) || fr.Identification != 0xfeedbeef {
			t.Errorf("fragment %d is %+v", i, fr)
		}
		if got.Layer(layers.LayerTypeIPv6HopByHop) == nil || fr.NextHeader != DestOptions {
			t.Errorf("fragment %d: layers %v, next header %v", i, layerNames(got), fr.NextHeader)
		}
		body = append(body, fr.Payload...)
	}
	if want := whole[40+8:]; !bytes.Equal(body, want) {
		t.Errorf("put together %x, want %x", body, want)
	}
}

func TestRefusals(t *testing.T) {
	for i, p := range []Packet{
		{},
		{Src: src4, Dst: dst6},
		with(syn4(), func(p *Packet) { p.IPOptions = make([]byte, 41) }),
		with(syn4(), func(p *Packet) { p.TCPOptions = make([]byte, 41) }),
		with(syn4(), func(p *Packet) { p.ExtHeaders = []ExtHeader{{DestOptions, 8}} }),
		with(syn6(), func(p *Packet) { p.IPOptions = make([]byte, 4) }),
		with(syn6(), func(p *Packet) { p.ExtHeaders = []ExtHeader{{DestOptions, 9}} }),
		with(syn6(), func(p *Packet) { p.ExtHeaders = []ExtHeader{{DestOptions, 2056}} }),
		with(syn6(), func(p *Packet) { p.ExtHeaders = []ExtHeader{{FragmentHdr, 16}} }),
		with(syn4(), func(p *Packet) { p.QinQ = true }),
		with(syn4(), func(p *Packet) { p.FragmentSize = 12 }),
		with(syn4(), func(p *Packet) { p.Payload = make([]byte, 65500) }),
		with(syn4(), func(p *Packet) { p.Payload, p.FragmentSize = make([]byte, 65600), 8 }),
		with(syn6(), func(p *Packet) { p.Payload = make([]byte, 65520) }),
	} {
		if frames, err := p.Frames(testLink); err == nil {
			t.Errorf("packet %d: %d frames and no error", i, len(frames))
		}
	}
}

func TestReplaceIsRecompute(t *testing.T) {
	b := []byte{0x45, 0, 0, 1, 0xff, 0xff, 0, 0}
	for _, word := range []uint16{0, 1, 0xfffe, 0xffff, 0x8000} {
		for _, old := range []uint16{0, 1, 0xfffe, 0xffff} {
			b[4], b[5] = byte(old>>8), byte(old)
			before := checksum(sum(b, 0))
			b[4], b[5] = byte(word>>8), byte(word)
			// RFC 1624 section 3: equal but for the two forms of zero.
			if got, want := replace(before, old, word), checksum(sum(b, 0)); got != want {
				t.Errorf("%04x to %04x: %04x, want %04x", old, word, got, want)
			}
		}
	}
}

func ExamplePacket_AppendTo() {
	p := Packet{
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"),
		Proto: ProtoUDP, SrcPort: 53, DstPort: 7,
	}
	b, err := p.AppendTo(nil, nil)
	fmt.Printf("%x %v\n", b, err)
	// Output: 4500001c000000004011f6cdc0000201c00002020035000700087b9e <nil>
}
