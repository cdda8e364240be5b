package decode

import (
	"testing"

	"portsentry/internal/capture"
)

func TestFromEvent(t *testing.T) {
	e := capture.Event{
		Kind: capture.EventProbe, Time: 5, IfIndex: 3, Src: src4, Dst: dst4, Proto: ProtoTCP, SrcPort: 1, DstPort: 2,
		Flags: SYN | AE, Window: 4, Urgent: 6, Seq: 7, Ack: 8, TCPOptions: cat([]byte{1, 1, 1, 0}, mss1460)[1:], PayloadLen: 9,
		IPID: 10, TTL: 11, DF: true, IPOptions: true, VLANs: 2, VLAN: [2]uint16{12, 13}, Peer: true, Held: true, Times: 1,
	}
	full := Probe{
		Time: 5, IfIndex: 3, Src: src4, Dst: dst4, Proto: ProtoTCP, SrcPort: 1, DstPort: 2, Flags: SYN | AE, Window: 4, Urgent: 6,
		Seq: 7, Ack: 8, TCPOptionsLen: 7, PayloadLen: 9, IPID: 10, TTL: 11, DF: true, IPOptions: Yes, VLANs: 2, VLAN: [2]uint16{12, 13},
	}
	for _, c := range []struct {
		name string
		edit func(e *capture.Event, p *Probe)
	}{
		{"probe", func(*capture.Event, *Probe) {}},
		{"no IPv4 options", func(e *capture.Event, p *Probe) { e.IPOptions, p.IPOptions = false, No }},
		{"IPv6", func(e *capture.Event, p *Probe) {
			e.Src, e.Dst, p.Src, p.Dst, p.IPOptions = src6, dst6, src6, dst6, NotKnown
		}},
		{"MSS", func(e *capture.Event, p *Probe) { e.TCPOptions, p.MSS, p.TCPOptionsLen = mss1460, 1460, 4 }},
		{"no options", func(e *capture.Event, p *Probe) { e.TCPOptions, p.TCPOptionsLen = nil, 0 }},
		{"malformed", func(e *capture.Event, p *Probe) { e.Malformed, p.Marks = true, BadLength }},
		{"short", func(e *capture.Event, p *Probe) { e.Short, p.Marks = true, ShortPayload }},
		{"extension headers", func(e *capture.Event, p *Probe) { e.ExtHeaders, p.Marks = true, HasExtHeaders }},
		{"question", func(e *capture.Event, _ *Probe) { e.Kind = capture.EventQuestion }},
		{"verified", func(e *capture.Event, p *Probe) { e.Kind, p.Accepted = capture.EventVerified, true }},
		{"ICMP", func(e *capture.Event, p *Probe) {
			e.Proto, e.ICMPType, e.ICMPCode, p.Proto, p.ICMPType, p.ICMPCode = ProtoICMP, 8, 3, ProtoICMP, 8, 3
		}},
		{"SCTP", func(e *capture.Event, p *Probe) {
			e.Proto, e.SCTPChunk, p.Proto, p.SCTPChunk = ProtoSCTP, 10, ProtoSCTP, 10
		}},
		{"counted", func(e *capture.Event, p *Probe) { e.Kind, e.Times, p.Times = capture.EventCounted, 70000, 70000 }},
	} {
		event, want := e, full
		c.edit(&event, &want)
		p := Probe{MSS: 1, Marks: 0xff, VLANs: 1, Accepted: true, Times: 5, PacketType: 2} // must all go
		if p.FromEvent(&event); p != want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, p, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		var p Probe
		p.FromEvent(&e)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
