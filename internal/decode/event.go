package decode

import "portsentry/internal/capture"

// FromEvent makes p the Probe that Decode would have made of the packet that e
// tells of. It overwrites every field, keeps nothing of e and allocates nothing.
func (p *Probe) FromEvent(e *capture.Event) {
	*p = Probe{
		Time: e.Time, IfIndex: e.IfIndex,
		Src: e.Src, Dst: e.Dst, Proto: e.Proto, SrcPort: e.SrcPort, DstPort: e.DstPort,
		Flags: e.Flags, Window: e.Window, Urgent: e.Urgent, Seq: e.Seq, Ack: e.Ack,
		MSS: mss(e.TCPOptions), TCPOptionsLen: uint8(len(e.TCPOptions)),
		ICMPType: e.ICMPType, ICMPCode: e.ICMPCode, SCTPChunk: e.SCTPChunk,
		IPID: e.IPID, TTL: e.TTL, DF: e.DF, PayloadLen: e.PayloadLen,
		VLANs: e.VLANs, VLAN: e.VLAN,
		Accepted: e.Kind == capture.EventVerified,
	}
	if e.Times > 1 {
		p.Times = e.Times
	}
	if !p.IsIPv6() {
		p.IPOptions = No
		if e.IPOptions {
			p.IPOptions = Yes
		}
	}
	if e.Malformed {
		p.Marks |= BadLength
	}
	if e.Short {
		p.Marks |= ShortPayload
	}
	if e.ExtHeaders {
		p.Marks |= HasExtHeaders
	}
}
