package afpacket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
)

// testPacket is a packet as the kernel would put it in a block.
type testPacket struct {
	data      []byte
	etherType uint16
	status    uint32
	tci       uint32
	ifIndex   int32
	kind      byte
}

// makeBlock lays packets out as linux/net/packet/af_packet.c does for a cooked
// socket: data 96 bytes behind the packet header, packets at multiples of 8.
func makeBlock(packets ...testPacket) block {
	b := make(block, blockSize)
	at := uint32(48)
	binary.NativeEndian.PutUint32(b[blockStatus:], unix.TP_STATUS_USER)
	binary.NativeEndian.PutUint32(b[blockPackets:], uint32(len(packets)))
	binary.NativeEndian.PutUint32(b[blockFirst:], at)
	for _, p := range packets {
		h := b[at:]
		next := uint32(96+len(p.data)+7) &^ 7
		binary.NativeEndian.PutUint32(h[packetNext:], next)
		binary.NativeEndian.PutUint32(h[packetSec:], 1700000000)
		binary.NativeEndian.PutUint32(h[packetNsec:], 123456789)
		binary.NativeEndian.PutUint32(h[packetSnaplen:], uint32(len(p.data)))
		binary.NativeEndian.PutUint32(h[packetLen:], uint32(len(p.data))+10)
		binary.NativeEndian.PutUint32(h[packetStatus:], p.status)
		binary.NativeEndian.PutUint16(h[packetNet:], 96)
		binary.NativeEndian.PutUint32(h[packetTCI:], p.tci)
		binary.BigEndian.PutUint16(h[linkProtocol:], p.etherType)
		binary.NativeEndian.PutUint32(h[linkIfIndex:], uint32(p.ifIndex))
		h[linkType] = p.kind
		copy(h[96:], p.data)
		at += next
	}
	return b
}

func frames(t *testing.T, b block) (got []capture.Frame) {
	t.Helper()
	at, err := b.first(), error(nil)
	for range b.packets() {
		var f capture.Frame
		if at, err = b.frame(at, &f); err != nil {
			t.Fatal(err)
		}
		got = append(got, f)
	}
	return got
}

func TestFrame(t *testing.T) {
	got := frames(t, makeBlock(
		testPacket{data: syn4(1), etherType: unix.ETH_P_IP, ifIndex: 3, kind: unix.PACKET_HOST, tci: 9},
		testPacket{data: syn4(2), etherType: unix.ETH_P_IP, ifIndex: 4, kind: unix.PACKET_BROADCAST, status: unix.TP_STATUS_CSUMNOTREADY},
		testPacket{data: syn4(3), etherType: unix.ETH_P_IP, ifIndex: 4, kind: unix.PACKET_OTHERHOST, status: unix.TP_STATUS_CSUM_VALID},
		testPacket{data: syn4(4), etherType: unix.ETH_P_IP, ifIndex: 4, kind: 17, status: unix.TP_STATUS_VLAN_VALID, tci: 0xa005},
	))
	for i, want := range []capture.Frame{
		{IfIndex: 3, PacketType: capture.PacketHost},
		{IfIndex: 4, PacketType: capture.PacketBroadcast, ChecksumPartial: true},
		{IfIndex: 4, PacketType: capture.PacketOtherHost, ChecksumPartial: true},
		{IfIndex: 4, PacketType: capture.PacketUnknown, HasVLAN: true, VLAN: 0xa005},
	} {
		f := got[i]
		if !bytes.Equal(f.Data, syn4(uint16(i+1))) || f.WireLen != len(f.Data)+10 {
			t.Errorf("frame %d: data % x of %d", i, f.Data, f.WireLen)
		}
		if f.Time != 1700000000123456789 || f.Link != capture.LinkNetwork || f.EtherType != unix.ETH_P_IP {
			t.Errorf("frame %d: %+v", i, f)
		}
		if f.IfIndex != want.IfIndex || f.PacketType != want.PacketType || f.ChecksumPartial != want.ChecksumPartial ||
			f.HasVLAN != want.HasVLAN || f.VLAN != want.VLAN {
			t.Errorf("frame %d: %+v, want %+v", i, f, want)
		}
	}
}

func TestTagged(t *testing.T) {
	// IP headers that look like a tag in front of one: 2048 bytes long, with an
	// identification of 0x45..; and a flow label that ends in 0x86dd.
	likeTag4 := ipv4(src4, tcpProto, 0, nil, make([]byte, 2028))
	binary.BigEndian.PutUint16(likeTag4[4:], 0x4500)
	binary.BigEndian.PutUint16(likeTag4[10:], binary.BigEndian.Uint16(likeTag4[10:])-0x4500)
	likeTag6 := ipv6(src6, tcpProto, make([]byte, 0x6000))
	binary.BigEndian.PutUint16(likeTag6[2:], unix.ETH_P_IPV6)
	for _, c := range []struct {
		name      string
		etherType uint16
		data      []byte
		want      bool
	}{
		{"IPv4", unix.ETH_P_IP, syn4(1), false},
		{"IPv4 that looks like a tag", unix.ETH_P_IP, likeTag4, false},
		{"tag, IPv4", unix.ETH_P_IP, tag(5, unix.ETH_P_IP, syn4(1)), true},
		{"tag that looks like IPv4", unix.ETH_P_IP, tag(0x4500, unix.ETH_P_IP, syn4(1)), true},
		{"two tags, IPv4", unix.ETH_P_IP, tag(5, unix.ETH_P_8021Q, tag(6, unix.ETH_P_IP, syn4(1))), true},
		{"IPv6", unix.ETH_P_IPV6, ipv6(src6, tcpProto, tcp(1, syn)), false},
		{"IPv6 that looks like a tag", unix.ETH_P_IPV6, likeTag6, false},
		{"tag, IPv6", unix.ETH_P_IPV6, tag(5, unix.ETH_P_IPV6, ipv6(src6, tcpProto, tcp(1, syn))), true},
		{"tag that looks like IPv6", unix.ETH_P_IPV6, tag(0x6000, unix.ETH_P_IPV6, ipv6(src6, tcpProto, tcp(1, syn))), true},
		{"short", unix.ETH_P_IP, []byte{0, 5, 8, 0}, false},
		{"old kernel", unix.ETH_P_8021Q, tag(5, unix.ETH_P_IP, syn4(1)), false},
	} {
		f := capture.Frame{EtherType: c.etherType, Data: c.data, WireLen: len(c.data)}
		if got := tagged(&f); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// Whatever the kernel writes, frames lie in their block or there is an error.
func FuzzBlock(f *testing.F) {
	good := makeBlock(testPacket{data: syn4(1), etherType: unix.ETH_P_IP, status: unix.TP_STATUS_VLAN_VALID})
	f.Add([]byte(good[:48+96+40]), uint32(48))
	f.Add([]byte(good[:200]), uint32(1<<32-1))
	f.Fuzz(func(t *testing.T, data []byte, at uint32) {
		b := block(data)
		var frame capture.Frame
		if _, err := b.frame(at, &frame); err != nil {
			if !errors.Is(err, errBlock) {
				t.Fatal(err)
			}
			return
		}
		if len(frame.Data) > len(data) || frame.WireLen < len(frame.Data) || cap(frame.Data) != len(frame.Data) {
			t.Fatalf("%d of %d, block of %d", len(frame.Data), frame.WireLen, len(data))
		}
	})
}

func TestFrameOutsideOfBlock(t *testing.T) {
	var f capture.Frame
	for _, spoil := range []func(b block) (at uint32){
		func(block) uint32 { return blockSize - 10 },
		func(block) uint32 { return 1<<32 - 1 },
		func(b block) uint32 { binary.NativeEndian.PutUint32(b[48+packetSnaplen:], 1<<32-1); return 48 },
		func(b block) uint32 { binary.NativeEndian.PutUint16(b[48+packetNet:], 0); return 48 },
	} {
		b := makeBlock(testPacket{data: syn4(1)})
		if _, err := b.frame(spoil(b), &f); !errors.Is(err, errBlock) {
			t.Error(err)
		}
	}
}

// fullBlock is a block of bare SYNs as the kernel fills it.
func fullBlock() (b block, n int) {
	const each = 96 + 40
	packets := make([]testPacket, (blockSize-48)/each)
	for i := range packets {
		packets[i] = testPacket{data: syn4(1), etherType: unix.ETH_P_IP, ifIndex: 2}
	}
	return makeBlock(packets...), len(packets)
}

// A frame of an interface that has been left is delivered if it came before that.
func TestDeliverWhatCameBefore(t *testing.T) {
	links := watched{now: []int32{1}, before: []int32{1, 2}, left: 100}
	for _, c := range []struct {
		index int32
		at    int64
		want  bool
	}{{1, 99, true}, {1, 101, true}, {2, 99, true}, {2, 100, false}, {3, 99, false}} {
		if got := links.has(c.index, c.at); got != c.want {
			t.Errorf("interface %d at %d: %v", c.index, c.at, got)
		}
	}
}

func TestDeliverAllocatesNothing(t *testing.T) {
	b, n := fullBlock()
	var links atomic.Pointer[watched]
	links.Store(&watched{now: []int32{1, 2}})
	w := &Worker{watched: &links}
	handled := 0
	handle := func(*capture.Frame) { handled++ }
	if allocs := testing.AllocsPerRun(10, func() {
		if err := w.deliver(b, handle); err != nil {
			t.Fatal(err)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations in a block of %d packets", allocs, n)
	}
	if handled != 11*n {
		t.Errorf("%d packets of %d", handled, 11*n)
	}
}

func BenchmarkDeliver(b *testing.B) {
	blk, n := fullBlock()
	var links atomic.Pointer[watched]
	links.Store(&watched{now: []int32{1, 2}})
	w := &Worker{watched: &links}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.deliver(blk, func(*capture.Frame) {}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
}
