package decode

import (
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"portsentry/internal/capture"
)

var (
	src4, dst4 = netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("198.51.100.9")
	src6, dst6 = netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("2001:db8:1::9")
)

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

// unhex reads hexadecimal digits, blanks between them.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func u16(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }

// slowSum is the ones' complement checksum word by word, as RFC 1071 defines it.
func slowSum(b []byte) uint16 {
	var acc uint32
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		acc += w
		acc = acc>>16 + acc&0xffff
	}
	return ^uint16(acc)
}

// v4 is an IPv4 packet to be built.
type v4 struct {
	proto   uint8
	id      int
	frag    int // flags and offset field
	opts    []byte
	payload []byte
	total   int // total length; 0: as it is
}

func (h v4) bytes() []byte {
	hlen := 20 + len(h.opts)
	total := h.total
	if total == 0 {
		total = hlen + len(h.payload)
	}
	b := cat([]byte{0x40 | byte(hlen/4), 0}, u16(total), u16(h.id), u16(h.frag),
		[]byte{64, h.proto, 0, 0}, src4.AsSlice(), dst4.AsSlice(), h.opts)
	binary.BigEndian.PutUint16(b[10:], slowSum(b))
	return cat(b, h.payload)
}

// v6 is an IPv6 packet to be built; next is that of the IPv6 header.
type v6 struct {
	next    uint8
	payload []byte
}

func (h v6) bytes() []byte {
	return cat([]byte{0x60, 0, 0, 0}, u16(len(h.payload)), []byte{h.next, 55},
		src6.AsSlice(), dst6.AsSlice(), h.payload)
}

// ext is an extension header of the usual form with size bytes.
func ext(next uint8, size int) []byte {
	b := make([]byte, size)
	b[0], b[1] = next, byte(size/8-1)
	b[2], b[3] = 1, byte(size-4) // PadN; for a routing header see routing
	return b
}

func routing(next, segmentsLeft uint8) []byte {
	return []byte{next, 0, 253, segmentsLeft, 0, 0, 0, 0}
}

func fragHdr(next uint8, off int, more bool, id uint32) []byte {
	v := off
	if more {
		v |= 1
	}
	return binary.BigEndian.AppendUint32(cat([]byte{next, 0}, u16(v)), id)
}

// tcpSeg builds a TCP segment without checksum. opts is padded by the caller.
func tcpSeg(sport, dport int, flags uint16, opts, data []byte) []byte {
	doff := (20 + len(opts)) / 4
	return cat(u16(sport), u16(dport), []byte{1, 2, 3, 4, 5, 6, 7, 8},
		u16(doff<<12|int(flags)), u16(1024), []byte{0, 0}, u16(7), opts, data)
}

func udpSeg(sport, dport int, data []byte) []byte {
	return cat(u16(sport), u16(dport), u16(8+len(data)), []byte{0, 0}, data)
}

// sum4 and sum6 fill in the checksum at offset at of a segment.
func sum4(proto uint8, at int, seg []byte) []byte {
	return sumAt(cat(src4.AsSlice(), dst4.AsSlice(), []byte{0, proto}, u16(len(seg))), at, seg)
}

func sum6(proto uint8, at int, seg []byte) []byte {
	return sumAt(cat(src6.AsSlice(), dst6.AsSlice(), []byte{0, 0}, u16(len(seg)), []byte{0, 0, 0, proto}), at, seg)
}

func sumAt(pseudo []byte, at int, seg []byte) []byte {
	seg = slices.Clone(seg)
	seg[at], seg[at+1] = 0, 0
	c := slowSum(cat(pseudo, seg))
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(seg[at:], c)
	return seg
}

// sctpSeg is a packet with one empty chunk and the right CRC32c.
func sctpSeg(sport, dport int, chunk byte) []byte {
	b := cat(u16(sport), u16(dport), make([]byte, 8), []byte{chunk, 0, 0, 4})
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

var mss1460 = []byte{2, 4, 5, 0xb4}

// syn4 and syn6 are plain SYN packets to port 11 with an MSS option.
func syn4() []byte {
	return v4{proto: 6, id: 4660, payload: sum4(6, 16, tcpSeg(40000, 11, SYN, mss1460, nil))}.bytes()
}

func syn6() []byte {
	return v6{next: 6, payload: sum6(6, 16, tcpSeg(40000, 11, SYN, mss1460, nil))}.bytes()
}

// net4 and net6 are frames as live capture gives them.
func net4(b []byte) *capture.Frame {
	return &capture.Frame{Time: 1, IfIndex: 3, Data: b, WireLen: len(b), Link: capture.LinkNetwork, EtherType: 0x0800}
}

func net6(b []byte) *capture.Frame {
	f := net4(b)
	f.EtherType = 0x86dd
	return f
}

// scratch is a Decoder for tests that want an empty one for every packet: a new
// one each time would be mostly the clearing of its table. No test is parallel.
var scratch Decoder

func empty() *Decoder {
	scratch.frags.tags, scratch.frags.next = [fragSlots]uint32{}, 0
	return &scratch
}

// decodeOne decodes f on its own.
func decodeOne(f *capture.Frame) (Probe, Status) {
	p := Probe{Src: dst6, Flags: 0xffff, VLANs: 9, Marks: 0xff, MSS: 1} // must all go
	st := empty().Decode(f, &p)
	return p, st
}
