package pcapfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"portsentry/internal/capture"
)

// The variants of pcap that pcapgo does not write.
func TestPcapVariants(t *testing.T) {
	little := binary.LittleEndian
	modified := pcap(t, 0, layers.LinkTypeEthernet, false)
	little.PutUint32(modified, magicModified)
	old := bytes.Clone(pcap(t, 0, layers.LinkTypeEthernet, false))
	little.PutUint16(old[6:], 2)
	later := pcap(t, 0, layers.LinkTypeEthernet, false) // lengths as they are
	record := func(captured, wire uint32, extra int, data []byte) []byte {
		var b []byte
		for _, v := range []uint32{uint32(at.Unix()), 500000, captured, wire} {
			b = little.AppendUint32(b, v)
		}
		return append(append(b, make([]byte, extra)...), data...)
	}
	for name, file := range map[string][]byte{
		"modified":                    append(modified, record(60, 70, 8, payload(0))...),
		"lengths swapped, before 2.3": append(old, record(70, 60, 0, payload(0))...),
		"longer than on the wire":     append(later, record(60, 7, 0, payload(0))...),
	} {
		_, frames, err := read(t, file)
		want := 70
		if name == "longer than on the wire" {
			want = 60
		}
		if err != nil || len(frames) != 1 || !bytes.Equal(frames[0].Data, payload(0)) || frames[0].WireLen != want ||
			frames[0].Time != time.Unix(at.Unix(), 5e8).UnixNano() {
			t.Errorf("%s: %v, %+v", name, err, frames)
		}
	}
	little.PutUint16(later[4:], 3)
	if _, err := New(bytes.NewReader(later)); err == nil {
		t.Error("version 3 was read")
	}
	var format *FormatError
	if _, err := New(bytes.NewReader([]byte("BZh91AY"))); !errors.As(err, &format) || string(format.Begins) != "BZh9" {
		t.Error(err)
	}
}

// Time stamps in any unit and with an offset.
func TestPcapngTime(t *testing.T) {
	for _, c := range []struct {
		resolution byte
		offset     int64 // seconds
		stamp      uint64
		want       int64
	}{
		{6, 0, 1, 1000}, {9, 0, 1, 1}, {0, 0, 7, 7e9}, {3, 0, 7, 7e6}, {12, 0, 7999, 7}, {19, 0, 1e19, 1e9},
		{0x80, 0, 7, 7e9}, {0x80 | 20, 0, 1 << 19, 5e8}, {0x80 | 63, 0, 1 << 62, 5e8},
		{6, 100, 1, 100e9 + 1000}, {9, -1, 2e9, 1e9},
		{20, 0, 1, 1000}, {0x80 | 64, 0, 1, 1000}, // what cannot be: the default
		{0, 0, 1 << 60, math.MaxInt64}, {3, 0, 1 << 62, math.MaxInt64},
	} {
		l := ngLink{units: units(c.resolution), offset: c.offset * 1e9}
		if got := l.time(c.stamp); got != c.want {
			t.Errorf("%#x, %d, %d: %d, want %d", c.resolution, c.offset, c.stamp, got, c.want)
		}
	}
}

// Blocks that few programs write.
func TestPcapngBlocks(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		describe := order.AppendUint16(nil, 101)
		describe = order.AppendUint16(describe, 0)
		describe = order.AppendUint32(describe, 62) // snap length
		describe = order.AppendUint16(order.AppendUint16(describe, 1), 5)
		describe = append(describe, "about   "...)
		describe = order.AppendUint16(order.AppendUint16(describe, optionOffset), 8)
		describe = order.AppendUint64(describe, 1000)
		old := order.AppendUint16(nil, 0)
		old = order.AppendUint16(old, 7) // losses
		for _, v := range []uint32{0, 5e5, 60, 70} {
			old = order.AppendUint32(old, v)
		}
		file := bytes.Join([][]byte{
			ngSection(order),
			ngBlock(order, blockInterface, describe),
			ngBlock(order, blockPacket, append(old, payload(0)...)),
			ngBlock(order, blockSimple, append(order.AppendUint32(nil, 80), payload(2)...)),
		}, nil)
		_, frames, err := read(t, file)
		if err != nil || len(frames) != 2 {
			t.Fatalf("%d frames, %v", len(frames), err)
		}
		if f := frames[0]; f.Time != 1000.5e9 || f.WireLen != 70 || f.Link != capture.LinkRaw || !bytes.Equal(f.Data, payload(0)) {
			t.Errorf("%+v", f)
		}
		if f := frames[1]; f.Time != 0 || f.WireLen != 80 || !bytes.Equal(f.Data, payload(2)) {
			t.Errorf("%+v", f)
		}
	}
}
