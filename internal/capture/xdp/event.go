package xdp

import (
	"net/netip"
	"unsafe"

	"portsentry/internal/bpf"
	"portsentry/internal/capture"
)

// Bits of bpf.Event.Marks; those of decode.Marks.
const (
	badIPChecksum = 1 << 0
	badChecksum   = 1 << 1
	badLength     = 1 << 4
	shortPayload  = 1 << 5
	extHeaders    = 1 << 6
)

// IP protocol numbers (IANA).
const (
	protoICMP   = 1
	protoICMPv6 = 58
	protoSCTP   = 132
)

const eventSize = int(unsafe.Sizeof(bpf.Event{}))

// parse gives the event that a record holds, and the bytes behind it. nil: it
// does not hold one.
func parse(record []byte) (e *bpf.Event, rest []byte) {
	if len(record) < eventSize {
		return nil, nil
	}
	return (*bpf.Event)(unsafe.Pointer(unsafe.SliceData(record))), record[eventSize:]
}

// kindOf is the kind of event that what tells of; 0: of none.
func kindOf(what uint8) capture.EventKind {
	switch what &^ bpf.WhatNoTrap {
	case bpf.WhatProbe:
		return capture.EventProbe
	case bpf.WhatQuestion:
		return capture.EventQuestion
	case bpf.WhatVerified:
		return capture.EventVerified
	case bpf.WhatLiving:
		return capture.EventLiving
	case bpf.WhatCounted:
		return capture.EventCounted
	}
	return 0
}

// addr unmaps what the program has as ::ffff:a.b.c.d. An address of an IPv6
// packet stays what it is.
func addr(b *[16]byte, v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16(*b)
	}
	return netip.AddrFrom4([4]byte(b[12:]))
}

// fill makes to of e, with which it shares the bytes of the TCP options. epoch is
// the zero of the program's clock in unix nanoseconds.
func fill(to *capture.Event, e *bpf.Event, kind capture.EventKind, epoch int64) {
	v6 := e.Ip&bpf.IPv6 != 0
	to.Kind = kind
	to.Time = int64(e.Time) + epoch
	to.IfIndex = int32(e.Ifindex)
	to.Src, to.Dst = addr(&e.Src.B, v6), addr(&e.Dst.B, v6)
	to.SrcPort, to.DstPort = e.Sport, e.Dport
	to.Proto = e.Proto
	to.Flags = e.Flags
	to.Window, to.Urgent = e.Window, e.Urgent
	to.Seq, to.Ack = e.Seq, e.Ack
	to.TCPOptions = e.Options[:min(int(e.OptionsLen), len(e.Options))]
	to.PayloadLen = int(e.Payload)
	to.ICMPType, to.ICMPCode, to.SCTPChunk = 0, 0, 0
	switch {
	case e.Proto == protoSCTP:
		to.SCTPChunk = e.Options[0]
	case e.Proto == protoICMP && !v6, e.Proto == protoICMPv6 && v6:
		to.ICMPType, to.ICMPCode = e.Options[0], e.Options[1]
	}
	to.IPID = e.Ipid
	to.TTL = e.Ttl
	to.DF = e.Ip&bpf.IPDontFragment != 0
	to.IPOptions = e.Ip&bpf.IPOptions != 0
	to.ExtHeaders = e.Marks&extHeaders != 0
	to.VLANs = min(e.Vlans, uint8(len(e.Vlan)))
	to.VLAN = e.Vlan
	to.Malformed = e.Marks&(badIPChecksum|badChecksum|badLength) != 0
	to.Short = e.Marks&shortPayload != 0
	to.Closed = e.What&bpf.WhatNoTrap != 0
	to.Peer = e.Ip&bpf.IPPeer != 0
	to.Held = e.Made != 0
	to.Times = max(e.Times, 1)
}

// fillFrame makes to of the frame whose bytes are rest, as many as came along.
func fillFrame(to *capture.Frame, e *bpf.Event, rest []byte, epoch int64) {
	data := rest[:min(len(rest), int(min(e.Length, bpf.RawBytes)))]
	*to = capture.Frame{
		Time: int64(e.Time) + epoch, Data: data, WireLen: max(int(e.Length), len(data)), IfIndex: int32(e.Ifindex),
		Link: capture.LinkEthernet, PacketType: capture.PacketHost, ChecksumPartial: true,
		VLAN: e.Vlan[0], HasVLAN: e.Vlans > 0,
	}
}
