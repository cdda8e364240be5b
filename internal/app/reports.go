package app

import (
	"context"

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
	)
	return t.Run(ctx, func(h nft.Hit) {
		f := capture.Frame{
			Time: h.Time, Data: h.Packet, WireLen: len(h.Packet), IfIndex: h.IfIndex,
			Link: capture.LinkRaw,
		}
		// A wrong checksum is junk that no host answers, or a packet of a
		// neighbour on this machine whose card would have filled it in: NFLOG
		// does not say which. The capture knows; until it speaks the ban stays
		// provisional.
		if decoder.Decode(&f, &probe) != decode.Complete || probe.Marks&(decode.BadChecksum|decode.BadIPChecksum) != 0 {
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
