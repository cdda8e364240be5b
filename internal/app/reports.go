package app

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/respond/nft"
)

// kernelReports hands the kernel's reports of provisional bans to the decider.
func (d *daemon) kernelReports(ctx context.Context, t *nft.Table) error {
	var (
		decoder decode.Decoder
		probe   decode.Probe
		junk    = junkPace
	)
	return t.Run(ctx, func(h nft.Hit) {
		f := capture.Frame{
			Time: h.Time, Data: h.Packet, WireLen: len(h.Packet), IfIndex: h.IfIndex,
			Link: capture.LinkRaw,
		}
		if decoder.Decode(&f, &probe) != decode.Complete {
			return
		}
		if probe.Marks&(decode.BadChecksum|decode.BadIPChecksum) != 0 {
			// Junk that no host answers, or a packet of a neighbour on this machine
			// whose card would have filled the checksum in. NFLOG does not say
			// which; the capture knows, and until it speaks the ban of that one
			// stays provisional.
			if !halfSummed(h.Packet, &probe) && junk.may(time.Now().UnixNano()) {
				d.takeBackJunk(ctx, t, probe.Src)
			}
			return
		}
		s := detect.Sighting{
			Time: probe.Time, IfIndex: probe.IfIndex, Src: probe.Src, Dst: probe.Dst,
			SrcPort: probe.SrcPort, DstPort: probe.DstPort, Proto: probe.Proto, Kind: detect.KindUDP,
			Flags: probe.Flags, TTL: probe.TTL, IPOptions: probe.IPOptions, Count: 1, Triggered: true,
		}
		if probe.Proto == decode.ProtoTCP {
			s.Kind = detect.Classify(probe.Flags)
		}
		select {
		case d.decider.hits <- s:
		default:
			d.decider.hitsLost.Add(1)
		}
	})
}

// junkPace bounds how many provisional bans of who sent what no host takes are taken
// back: each costs a transaction. The others end by themselves.
var junkPace = pace{every: 10 * time.Millisecond, ahead: 100 * 10 * time.Millisecond}

// takeBackJunk ends the provisional ban of a, who has sent what no host takes. A ban that
// he has earned by something else is none of the rule's, and stays.
func (d *daemon) takeBackJunk(ctx context.Context, t *nft.Table, a netip.Addr) {
	d.decider.revoked.Add(1)
	d.sayRevoked(t.Revoke(ctx, a))
}

// halfSummed reports whether the checksum field of a TCP or UDP packet has the sum of the
// pseudo-header, which is where a card, or Linux in its place, goes on from. b begins
// with the IP header. Behind extension headers nobody looks: it may be so.
func halfSummed(b []byte, p *decode.Probe) bool {
	head, length := 40, 0
	switch {
	case p.Src.Is4():
		head = int(b[0]&15) * 4
		length = int(binary.BigEndian.Uint16(b[2:])) - head
	case b[6] != p.Proto:
		return true
	default:
		length = int(binary.BigEndian.Uint16(b[4:]))
	}
	at := head + 16
	if p.Proto == decode.ProtoUDP {
		at = head + 6
	}
	if len(b) < at+2 {
		return true
	}
	sum := uint32(p.Proto) + uint32(length)
	for _, a := range [...]netip.Addr{p.Src, p.Dst} {
		for s := a.AsSlice(); len(s) > 1; s = s[2:] {
			sum += uint32(binary.BigEndian.Uint16(s))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return binary.BigEndian.Uint16(b[at:]) == uint16(sum)
}
