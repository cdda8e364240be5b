package flows

import (
	"encoding/binary"
	"testing"
	"time"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// FuzzPackets: whatever packets come, at whatever times, the Tracker does not
// panic or allocate; each contact is what its first packet says and comes once; a
// source is never who sent nothing but answers; at the end nothing waits.
func FuzzPackets(f *testing.F) {
	f.Add([]byte("\x00\x10\x02\x00\x00\x00\x00\x01\x00\x90\x12\x00\x00\x00\x00\x01"))
	f.Add([]byte("\x01\x10\x00\x00\x00\x00\x00\x01\x01\x90\x00\x00\x00\x00\x00\x01"))
	f.Add([]byte("\x03\x15\x01\x01\xff\x00\x00\x01\x02\x90\x08\x03\x80\x00\x00\x01\x04\x10\x33\x00\x40\x00\x00\x01"))
	names := []string{"C", "S", "T", "M"}
	protos := []uint8{decode.ProtoTCP, decode.ProtoUDP, decode.ProtoICMP, decode.ProtoSCTP, 99}
	ports := []uint16{53, 80, 40000, 33434}
	f.Fuzz(func(t *testing.T, data []byte) {
		sent := make(map[int64]decode.Probe)
		asked := make(map[string]bool)
		tr := New(Options{Flows: 16}, func(c *detect.Contact) {
			p, ok := sent[c.Time]
			if !ok {
				t.Fatalf("contact %+v: begun by nothing, or twice", *c)
			}
			delete(sent, c.Time)
			if c.Src != p.Src || c.Dst != p.Dst || c.Head.Proto != p.Proto || c.Proto != p.Proto || c.Head.Seq != p.Seq {
				t.Fatalf("contact %+v of %+v", *c, p)
			}
			if c.Verified && c.Outcome != detect.Answered {
				t.Fatalf("verified, but %+v", *c)
			}
			if !asked[p.Src.String()] {
				t.Fatalf("%v sent nothing but answers: %+v", p.Src, *c)
			}
		})
		now := start
		size := len(tr.entries)
		for i := 0; len(data) >= 8; i, data = i+1, data[8:] {
			family := hosts[data[0]>>7]
			p := decode.Probe{
				Src: family[names[data[1]&3]], Dst: family[names[data[1]>>2&3]],
				Proto: protos[data[0]&0x7f%5], Seq: uint32(data[4] & 7), Ack: uint32(data[5] & 7), TTL: data[6],
				PayloadLen: int(data[6] >> 6),
			}
			jump := time.Duration(int8(data[7])) * 20 * time.Millisecond
			switch data[7] {
			case 0x7f:
				jump = 40 * 24 * time.Hour
			case 0x80:
				jump = -40 * 24 * time.Hour
			}
			now += int64(jump) / 1e6 * 1e6
			p.Time = now + int64(i) // no two at the same time
			for sent[p.Time].Src.IsValid() {
				p.Time++
			}
			switch p.Proto {
			case decode.ProtoTCP:
				p.Flags = binary.BigEndian.Uint16(data[2:]) & 0x3f
			case decode.ProtoSCTP:
				p.SCTPChunk = data[2] % 12
			case decode.ProtoICMP:
				if p.ICMPType, p.ICMPCode = data[2]%20, data[3]%4; data[0]>>7 == 1 {
					p.Proto, p.ICMPType = decode.ProtoICMPv6, data[2]%5+125*(data[2]&1)
				}
			}
			if p.Proto != decode.ProtoICMP && p.Proto != decode.ProtoICMPv6 && p.Proto != 99 {
				p.SrcPort, p.DstPort = ports[data[1]>>4&3], ports[data[1]>>6]
			}
			var frame *capture.Frame
			if data[3]&0x80 != 0 && (p.Proto == decode.ProtoICMP || p.Proto == decode.ProtoICMPv6) {
				frame = quoting(&p, protos[data[3]%5], family[names[data[4]&3]], family[names[data[4]>>2&3]], ports[data[4]>>4&3], ports[data[4]>>6])
			}
			if p.Flags&(decode.SYN|decode.ACK) != decode.SYN|decode.ACK && p.Flags&decode.RST == 0 {
				asked[p.Src.String()] = true
			}
			sent[p.Time] = p
			tr.Packet(&p, frame)
			if i%7 == 6 {
				tr.consistent(t)
			}
		}
		tr.Flush()
		tr.consistent(t)
		if tr.waiting.head != none || len(tr.entries) != size {
			t.Fatalf("queue %+v, %d entries", tr.waiting, len(tr.entries))
		}
	})
}

// consistent checks that the queue holds just what waits, in order.
func (t *Tracker) consistent(tb testing.TB) {
	tb.Helper()
	waiting := 0
	for i := range t.entries {
		if t.entries[i].due != 0 {
			waiting++
		}
	}
	prev, due := none, int64(0)
	for i := t.waiting.head; i != none; i = t.entries[i].next {
		e := &t.entries[i]
		if e.prev != prev || e.due < due || e.due == 0 || e.state == live || e.state == failed {
			tb.Fatalf("entry %d in the queue: %+v, after %d, due %d", i, e, prev, due)
		}
		prev, due = i, e.due
		waiting--
	}
	if waiting != 0 || t.waiting.tail != prev {
		tb.Fatalf("%d wait outside of the queue, its tail is %d, not %d", waiting, t.waiting.tail, prev)
	}
}
