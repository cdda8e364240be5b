package decode

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"portsentry/internal/capture"
)

// FuzzDecode: whatever the bytes, Decode does not panic, gives the same answer
// twice, reads nothing behind the captured bytes, is consistent with its own
// answer on every shorter capture of the frame, and agrees with gopacket where
// that understands the frame without complaint.
func FuzzDecode(f *testing.F) {
	all := frames()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fr := all[name]
		f.Add(fr.Data, uint8(fr.Link), fr.EtherType, false)
		if fr.Link == capture.LinkNetwork {
			f.Add(cat(macs, u16(int(fr.EtherType)), fr.Data), uint8(capture.LinkEthernet), uint16(0), true)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, link uint8, etherType uint16, partial bool) {
		fr := capture.Frame{
			Data: data, WireLen: len(data), Link: capture.Link(link % 9), EtherType: etherType,
			VLAN: 0x1234, HasVLAN: link&0x80 != 0, ChecksumPartial: partial,
		}
		var p, q Probe
		st := empty().Decode(&fr, &p)
		room := append(slices.Clone(data), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"...)
		again := fr
		again.Data = room[:len(data)]
		if st2 := empty().Decode(&again, &q); st != st2 || p != q {
			t.Fatalf("%d %+v, then %d %+v", st, p, st2, q)
		}
		if st > Malformed || p.PayloadLen < 0 || int(p.VLANs) > len(p.VLAN) {
			t.Fatalf("status %d, %+v", st, p)
		}
		if st == Complete && (!p.Src.IsValid() || !p.Dst.IsValid() || p.Src.Is4() != p.Dst.Is4()) {
			t.Fatalf("addresses %v, %v", p.Src, p.Dst)
		}
		if len(data) > 0 && p.Marks&Fragmented == 0 {
			again.Data = room[:len(data)-1-int(etherType)%len(data)]
			if cut := empty().Decode(&again, &q); cut == Complete && q.Marks&Fragmented == 0 && (st != Complete || !same(p, q)) {
				t.Fatalf("cut to %d: %d %+v, whole: %d %+v", len(again.Data), cut, q, st, p)
			}
		}
		if fr.Link == capture.LinkEthernet && !fr.HasVLAN {
			compare(t, data, &p, st)
		}
	})
}

// compare checks p against gopacket, where the frame is plain Ethernet, IP and
// TCP or UDP.
func compare(t *testing.T, data []byte, p *Probe, st Status) {
	pkt := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.NoCopy)
	ls := pkt.Layers()
	if pkt.ErrorLayer() != nil || len(ls) < 3 {
		return
	}
	if eth, ok := ls[0].(*layers.Ethernet); !ok || eth.EthernetType != layers.EthernetTypeIPv4 && eth.EthernetType != layers.EthernetTypeIPv6 {
		return // gopacket takes 0xffff for IP, which it is not
	}
	var src, dst string
	switch ip := ls[1].(type) {
	case *layers.IPv4:
		if ip.Version != 4 { // which gopacket does not mind
			return
		}
		src, dst = ip.SrcIP.String(), ip.DstIP.String()
		if st == Complete && (p.TTL != ip.TTL || p.IPID != uint32(ip.Id) || p.DF != (ip.Flags&layers.IPv4DontFragment != 0) ||
			(p.IPOptions == Yes) != (ip.IHL > 5)) {
			t.Fatalf("IPv4: %+v, gopacket %+v", *p, ip)
		}
	case *layers.IPv6:
		if ip.Version != 6 {
			return
		}
		src, dst = ip.SrcIP.String(), ip.DstIP.String()
		if st == Complete && p.TTL != ip.HopLimit {
			t.Fatalf("IPv6: %+v, gopacket %+v", *p, ip)
		}
	default:
		return
	}
	var sport, dport uint16
	switch h := ls[2].(type) {
	case *layers.TCP:
		sport, dport = uint16(h.SrcPort), uint16(h.DstPort)
		flags := be16(h.Contents[12:]) & 0x1ff
		if st == Complete && (p.Proto != ProtoTCP || p.Flags != flags || p.Seq != h.Seq || p.Ack != h.Ack || p.Window != h.Window ||
			p.Urgent != h.Urgent || int(p.TCPOptionsLen) != int(h.DataOffset)*4-20) {
			t.Fatalf("TCP: %+v, gopacket %+v", *p, h)
		}
		if st == Complete && p.Flags&SYN != 0 != h.SYN || st == Complete && p.Flags&AE != 0 != h.NS {
			t.Fatalf("TCP flags: %+v, gopacket %+v", *p, h)
		}
		if st == Complete && p.MSS != gopacketMSS(h) {
			t.Fatalf("MSS %d, gopacket %+v", p.MSS, h.Options)
		}
	case *layers.UDP:
		sport, dport = uint16(h.SrcPort), uint16(h.DstPort)
		if st == Complete && p.Proto != ProtoUDP {
			t.Fatalf("UDP: %+v, gopacket %+v", *p, h)
		}
	default:
		return
	}
	if st != Complete || p.SrcPort != sport || p.DstPort != dport {
		t.Fatalf("status %d, %+v; gopacket %v", st, *p, pkt)
	}
	if s, d := p.Src.Unmap().String(), p.Dst.Unmap().String(); s != src || d != dst {
		t.Fatalf("addresses %s, %s; gopacket %s, %s", s, d, src, dst)
	}
}

func gopacketMSS(h *layers.TCP) uint16 {
	for _, o := range h.Options {
		if o.OptionType == layers.TCPOptionKindMSS && o.OptionLength == 4 {
			return binary.BigEndian.Uint16(o.OptionData)
		}
	}
	return 0
}

// FuzzFragments: a script of fragments gives what a simple model of Linux's
// reassembly gives. Each step of the script is four bytes: datagram, offset in
// units, length in units (0 to 7) and whether more follow, and the fill byte.
func FuzzFragments(f *testing.F) {
	f.Add([]byte{0, 0, 0x81, 1, 0, 1, 0x81, 2, 0, 2, 0x01, 3})    // nmap -f
	f.Add([]byte{0, 2, 0x01, 1, 0, 1, 0x81, 2, 0, 0, 0x81, 3})    // backwards
	f.Add([]byte{0, 0, 0x82, 1, 0, 1, 0x02, 2, 0, 0, 0x83, 3})    // overlap
	f.Add([]byte{0, 0, 0x81, 1, 0, 0, 0x81, 9, 0, 1, 0x02, 3})    // duplicate
	f.Add([]byte{1, 0, 0x87, 1, 1, 7, 0x07, 9, 1, 0, 0x83, 0x50}) // first whole
	f.Add([]byte{1, 0, 0x80, 1, 1, 0, 0x00, 9, 1, 0, 0x83, 0x50}) // empty
	f.Fuzz(func(t *testing.T, script []byte) {
		d := empty()
		m := map[int]*model{}
		for ; len(script) >= 4; script = script[4:] {
			id, off := int(script[0]%4), int(script[1]%16)*8
			n, more := int(script[2]&7)*8, script[2]&0x80 != 0
			if !more && n > 0 {
				n -= int(script[2]>>3) & 7 // the last may have any length
			}
			b := make([]byte, n)
			for i := range b {
				b[i] = script[3] + byte(i)
			}
			fr := one4(id, off, more, b)
			if off == 0 && !more {
				continue // no fragment
			}
			if m[id] == nil {
				m[id] = &model{bytes: map[int]byte{}}
			}
			want, whole := m[id].add(off, more, b)
			var p Probe
			st := d.Decode(fr, &p)
			if (st == Complete) != (len(want) >= tcpLen) {
				t.Fatalf("status %d, model %x", st, want)
			}
			if st == Complete && (p.SrcPort != be16(want) || p.DstPort != be16(want[2:]) || p.Flags != be16(want[12:])&0x1ff || p.Marks&Fragmented == 0) {
				t.Fatalf("%+v, model %x", p, want)
			}
			if whole {
				delete(m, id)
			}
		}
	})
}

// model is one datagram, byte by byte.
type model struct {
	bytes map[int]byte
	runs  [][2]int // as Linux joins fragments, the one with the highest offset last
	end   int
	last  bool
	done  bool
}

// add takes in a fragment. It returns the bytes from the start when they are to
// be answered, and whether all fragments are there.
func (m *model) add(off int, more bool, b []byte) (header []byte, whole bool) {
	end := off + len(b)
	alone := off == 0 && len(b) >= tcpLen
	clash := len(b) == 0 || !more && (end < m.end || m.last && end > m.end) || more && m.last && end > m.end
	duplicate := false
	if !clash {
		for _, r := range m.runs {
			switch {
			case end <= r[0] || off >= r[1]:
			case off >= r[0] && end <= r[1]:
				duplicate = true
			default:
				clash = true
			}
		}
		m.last = m.last || !more
	}
	if clash {
		*m = model{bytes: map[int]byte{}}
		if !alone {
			return nil, false
		}
		m.last = !more
	}
	if duplicate && !clash {
		if !alone || bytes.Equal(b[:min(len(b), fragHead)], m.prefix()[:min(len(b), fragHead)]) {
			return nil, false
		}
		m.done = false
	} else if n := len(m.runs); n > 0 && m.runs[n-1][1] == off {
		m.runs[n-1][1] = end
	} else {
		m.runs = append(m.runs, [2]int{off, end})
		slices.SortFunc(m.runs, func(a, b [2]int) int { return a[0] - b[0] })
	}
	for i, v := range b {
		if _, ok := m.bytes[off+i]; !ok || off+i < fragHead {
			m.bytes[off+i] = v
		}
	}
	m.end = max(m.end, end)
	whole = m.last && len(m.bytes) == m.end
	header = m.prefix()
	if m.done || len(header) < tcpLen && !whole {
		return nil, whole
	}
	m.done = true
	return header, whole
}

// prefix is what has come without a gap.
func (m *model) prefix() (b []byte) {
	for {
		v, ok := m.bytes[len(b)]
		if !ok {
			return b
		}
		b = append(b, v)
	}
}
