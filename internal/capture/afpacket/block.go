package afpacket

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
)

// A block of the ring, as linux/if_packet.h lays it out (tpacket_block_desc):
// a header, then packets, each a tpacket3_hdr, a sockaddr_ll and the data.
// Numbers are in the byte order of the machine unless said otherwise.
type block []byte

// Offsets in a block, from its start.
const (
	blockHeader  = unsafe.Offsetof(unix.TpacketBlockDesc{}.Hdr)
	blockStatus  = blockHeader + unsafe.Offsetof(unix.TpacketHdrV1{}.Block_status)
	blockPackets = blockHeader + unsafe.Offsetof(unix.TpacketHdrV1{}.Num_pkts)
	blockFirst   = blockHeader + unsafe.Offsetof(unix.TpacketHdrV1{}.Offset_to_first_pkt)
)

// Offsets in a packet, from its tpacket3_hdr. The sockaddr_ll follows that
// header at the next multiple of TPACKET_ALIGNMENT, which it ends at.
const (
	packetNext    = unsafe.Offsetof(unix.Tpacket3Hdr{}.Next_offset)
	packetSec     = unsafe.Offsetof(unix.Tpacket3Hdr{}.Sec)
	packetNsec    = unsafe.Offsetof(unix.Tpacket3Hdr{}.Nsec)
	packetSnaplen = unsafe.Offsetof(unix.Tpacket3Hdr{}.Snaplen)
	packetLen     = unsafe.Offsetof(unix.Tpacket3Hdr{}.Len)
	packetStatus  = unsafe.Offsetof(unix.Tpacket3Hdr{}.Status)
	packetNet     = unsafe.Offsetof(unix.Tpacket3Hdr{}.Net)
	packetTCI     = unsafe.Offsetof(unix.Tpacket3Hdr{}.Hv1) + unsafe.Offsetof(unix.TpacketHdrVariant1{}.Vlan_tci)

	linkProtocol = unix.SizeofTpacket3Hdr + unsafe.Offsetof(unix.RawSockaddrLinklayer{}.Protocol) // network byte order
	linkIfIndex  = unix.SizeofTpacket3Hdr + unsafe.Offsetof(unix.RawSockaddrLinklayer{}.Ifindex)
	linkType     = unix.SizeofTpacket3Hdr + unsafe.Offsetof(unix.RawSockaddrLinklayer{}.Pkttype)
	linkEnd      = unix.SizeofTpacket3Hdr + unix.SizeofSockaddrLinklayer
)

var errBlock = errors.New("afpacket: the kernel's ring makes no sense: a packet lies outside of its block")

func (b block) status() *uint32 { return (*uint32)(unsafe.Pointer(&b[blockStatus])) }

// ready reports whether the kernel has handed the block over.
func (b block) ready() bool { return atomic.LoadUint32(b.status())&unix.TP_STATUS_USER != 0 }

// release gives the block back to the kernel.
func (b block) release() { atomic.StoreUint32(b.status(), unix.TP_STATUS_KERNEL) }

// packets is how many packets the block holds, first the offset of the first.
func (b block) packets() uint32 { return binary.NativeEndian.Uint32(b[blockPackets:]) }
func (b block) first() uint32   { return binary.NativeEndian.Uint32(b[blockFirst:]) }

// frame reads the packet at offset at into f and gives the offset of the next
// one. f.Data is part of the block. Offsets are the kernel's own, but a wrong
// one must end in an error rather than in somebody else's memory.
func (b block) frame(at uint32, f *capture.Frame) (next uint32, err error) {
	if uint64(at)+linkEnd > uint64(len(b)) {
		return 0, errBlock
	}
	p := b[at:]
	h := p[:linkEnd:linkEnd]
	begin := uint64(binary.NativeEndian.Uint16(h[packetNet:]))
	end := begin + uint64(binary.NativeEndian.Uint32(h[packetSnaplen:]))
	if begin < linkEnd || end > uint64(len(p)) {
		return 0, errBlock
	}
	status := binary.NativeEndian.Uint32(h[packetStatus:])

	f.Time = int64(binary.NativeEndian.Uint32(h[packetSec:]))*1e9 + int64(binary.NativeEndian.Uint32(h[packetNsec:]))
	f.Data = p[begin:end:end]
	f.WireLen = max(int(binary.NativeEndian.Uint32(h[packetLen:])), len(f.Data))
	f.IfIndex = int32(binary.NativeEndian.Uint32(h[linkIfIndex:]))
	f.Link = capture.LinkNetwork
	f.EtherType = binary.BigEndian.Uint16(h[linkProtocol:])
	f.PacketType = packetType(h[linkType])
	// Where the kernel vouches for the checksum, what stands in the packet need
	// not be the one: virtual and offloading cards fill it in late or never.
	f.ChecksumPartial = status&(unix.TP_STATUS_CSUMNOTREADY|unix.TP_STATUS_CSUM_VALID) != 0
	f.HasVLAN = status&unix.TP_STATUS_VLAN_VALID != 0
	f.VLAN = 0
	if f.HasVLAN {
		f.VLAN = uint16(binary.NativeEndian.Uint32(h[packetTCI:]))
		if tagged(f) {
			f.EtherType = unix.ETH_P_8021Q
		}
	}
	return at + binary.NativeEndian.Uint32(h[packetNext:]), nil
}

// packetType maps PACKET_HOST (0) and what follows it.
func packetType(kernel uint8) capture.PacketType {
	if kernel > unix.PACKET_OUTGOING {
		return capture.PacketUnknown
	}
	return capture.PacketHost + capture.PacketType(kernel)
}

// tagged reports whether the data of f begins with a second VLAN tag although
// EtherType says IP. Of two tags the kernel takes off one; from 6.10 (and in
// older stable kernels) it looks through the other for the EtherType and yet
// leaves it in the data. Nothing in the ring tells this from IP, whose first
// bits a tag can imitate, so: a tag is four bytes with the same EtherType (or
// another tag's) at the end, and not the beginning of a sound IP header.
func tagged(f *capture.Frame) bool {
	d := f.Data
	if len(d) < tagLen+1 {
		return false
	}
	behind := binary.BigEndian.Uint16(d[2:])
	switch f.EtherType {
	case unix.ETH_P_IP:
		if behind != unix.ETH_P_IP && !tagType(behind) {
			return false
		}
		return !soundIPv4(d)
	case unix.ETH_P_IPV6:
		if behind != unix.ETH_P_IPV6 && !tagType(behind) {
			return false
		}
		// As IPv6, the payload length would begin with the 6 of the version.
		return !(d[0]>>4 == 6 && len(d) >= 40 && int(binary.BigEndian.Uint16(d[4:]))+40 <= f.WireLen)
	}
	return false
}

func tagType(t uint16) bool {
	return t == unix.ETH_P_8021Q || t == typeQinQ || t == typeOldQinQ
}

// soundIPv4 reports whether d begins with an IPv4 header whose checksum
// (RFC 791) is right.
func soundIPv4(d []byte) bool {
	length := int(d[0]&0xf) * 4
	if d[0]>>4 != 4 || length < 20 || length > len(d) {
		return false
	}
	var sum uint32
	for i := 0; i < length; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(d[i:]))
	}
	sum = sum&0xffff + sum>>16
	return sum&0xffff+sum>>16 == 0xffff
}
