package nft

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// message is one NFLOG message as the kernel sends it.
func message(seq uint32, attrs ...[]byte) []byte {
	body := []byte{unix.NFPROTO_IPV4, 0, 0, 7}
	for _, a := range append(attrs, attribute(nfulaSeq, binary.BigEndian.AppendUint32(nil, seq))) {
		body = append(body, a...)
	}
	m := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	m = binary.NativeEndian.AppendUint16(m, unix.NFNL_SUBSYS_ULOG<<8|nfulnlMsgPacket)
	return append(append(m, make([]byte, 10)...), body...)
}

func attribute(kind uint16, value []byte) []byte {
	a := binary.NativeEndian.AppendUint16(nil, uint16(unix.NLA_HDRLEN+len(value)))
	a = append(binary.NativeEndian.AppendUint16(a, kind), value...)
	return append(a, make([]byte, (4-len(a)&3)&3)...)
}

func TestMessages(t *testing.T) {
	packet := []byte{0x45, 1, 2, 3, 4}
	stamp := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 1700000000), 250)
	full := [][]byte{attribute(nfulaIfIndexIn, []byte{0, 0, 1, 2}), attribute(nfulaTimestamp, stamp), attribute(nfulaPayload, packet)}
	var l hitLog
	var got []Hit
	collect := func(h Hit) { h.Packet = bytes.Clone(h.Packet); got = append(got, h) }
	l.messages(append(message(0, full...), message(1, full...)...), collect)
	l.messages(message(4, full...), collect)      // 2 and 3 are lost
	l.messages(message(5, full[:2]...), collect)  // no packet: nothing to tell
	l.messages(message(6, full...)[:60], collect) // cut
	if len(got) != 3 || l.announced.Load() != 3 || l.lost.Load() != 2 {
		t.Fatalf("%d hits, announced %d, lost %d", len(got), l.announced.Load(), l.lost.Load())
	}
	for _, h := range got {
		if h.Time != 1700000000000250000 || h.IfIndex != 258 || h.Family != 4 || !bytes.Equal(h.Packet, packet) {
			t.Errorf("%+v", h)
		}
	}
}

func TestMessagesAllocateNothing(t *testing.T) {
	var l hitLog
	m := message(0, attribute(nfulaPayload, make([]byte, 60)))
	n := 0
	if allocs := testing.AllocsPerRun(100, func() { l.messages(m, func(Hit) { n++ }) }); allocs != 0 || n == 0 {
		t.Errorf("%v allocations for a hit, %d hits", allocs, n)
	}
}

// Whatever comes, a hit's packet lies within it and is not empty.
func FuzzMessages(f *testing.F) {
	f.Add(message(3, attribute(nfulaPayload, []byte{0x45})))
	f.Add(message(1<<31, attribute(nfulaTimestamp, make([]byte, 16)), attribute(nfulaPayload, make([]byte, 40))))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l hitLog
		l.messages(b, func(h Hit) {
			if len(h.Packet) == 0 || !bytes.Contains(b, h.Packet) || h.Family != 4 && h.Family != 6 {
				t.Errorf("%+v of %x", h, b)
			}
		})
	})
}

// Elements of a set: no panic, and what is read has a key.
func FuzzElements(f *testing.F) {
	f.Add(attribute(unix.NFTA_SET_ELEM_LIST_ELEMENTS, attribute(1, attribute(unix.NFTA_SET_ELEM_KEY, attribute(1, []byte{1, 2, 3, 4})))))
	lay := newLayout(4)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = elements(b, func(e element) {
			if len(e.key) == 0 {
				t.Error("no key")
			}
			for _, fam := range lay.families() {
				for _, s := range fam.bans() {
					if b, ok := fam.ban(s, e); ok && !b.Prefix.IsValid() {
						t.Errorf("%+v", b)
					}
				}
			}
		})
	})
}
