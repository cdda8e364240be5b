package pcapfile

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"portsentry/internal/capture"
)

var at = time.Date(2026, 2, 3, 4, 5, 6, 123456789, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func info(i, captured, wire int) gopacket.CaptureInfo {
	return gopacket.CaptureInfo{Timestamp: at.Add(time.Duration(i) * time.Second), CaptureLength: captured, Length: wire}
}

func payload(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 60+i) }

// pcap is a file of n packets; the wire length is 10 more than what is there.
func pcap(t testing.TB, n int, link layers.LinkType, nanos bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if nanos {
		w = pcapgo.NewWriterNanos(&b)
	}
	must(t, w.WriteFileHeader(262144, link))
	for i := range n {
		must(t, w.WritePacket(info(i, 60+i, 70+i), payload(i)))
	}
	return b.Bytes()
}

// bigEndian turns a pcap file by pcapgo around.
func bigEndian(file []byte) []byte {
	out := bytes.Clone(file)
	swap := func(at, size int) {
		for i := range size / 2 {
			out[at+i], out[at+size-1-i] = out[at+size-1-i], out[at+i]
		}
	}
	for _, f := range [][2]int{{0, 4}, {4, 2}, {6, 2}, {8, 4}, {12, 4}, {16, 4}, {20, 4}} {
		swap(f[0], f[1])
	}
	for at := 24; at < len(out); {
		length := int(binary.LittleEndian.Uint32(file[at+8:]))
		for f := range 4 {
			swap(at+4*f, 4)
		}
		at += 16 + length
	}
	return out
}

func zipped(t testing.TB, file []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(file)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

func read(t testing.TB, file []byte) (*File, []capture.Frame, error) {
	t.Helper()
	f, err := New(bytes.NewReader(file))
	if err != nil {
		return nil, nil, err
	}
	var frames []capture.Frame
	err = f.Run(t.Context(), func(frame *capture.Frame) {
		kept := *frame
		kept.Data = bytes.Clone(frame.Data)
		frames = append(frames, kept)
	})
	if f.Stats().Frames != uint64(len(frames)) {
		t.Errorf("%+v, %d delivered", f.Stats(), len(frames))
	}
	return f, frames, err
}

func TestPcap(t *testing.T) {
	micros := at.Truncate(time.Microsecond)
	for _, c := range []struct {
		name string
		file []byte
		time time.Time
	}{
		{"microseconds", pcap(t, 3, layers.LinkTypeEthernet, false), micros},
		{"nanoseconds", pcap(t, 3, layers.LinkTypeEthernet, true), at},
		{"microseconds, big-endian", bigEndian(pcap(t, 3, layers.LinkTypeEthernet, false)), micros},
		{"nanoseconds, big-endian", bigEndian(pcap(t, 3, layers.LinkTypeEthernet, true)), at},
		{"gzip", zipped(t, pcap(t, 3, layers.LinkTypeEthernet, true)), at},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, frames, err := read(t, c.file)
			if err != nil || f.Cut() || len(frames) != 3 {
				t.Fatalf("%d frames, cut %v, %v", len(frames), f.Cut(), err)
			}
			for i, frame := range frames {
				if frame.Time != c.time.Add(time.Duration(i)*time.Second).UnixNano() || frame.WireLen != 70+i ||
					frame.Link != capture.LinkEthernet || frame.IfIndex != 0 || frame.PacketType != capture.PacketUnknown ||
					!bytes.Equal(frame.Data, payload(i)) {
					t.Errorf("frame %d: %+v", i, frame)
				}
			}
		})
	}
}

func TestLinkTypes(t *testing.T) {
	for number, want := range map[layers.LinkType]capture.Link{
		0: capture.LinkNull, 1: capture.LinkEthernet, 9: capture.LinkPPP, 12: capture.LinkRaw, 14: capture.LinkRaw,
		50: capture.LinkPPP, 101: capture.LinkRaw, 108: capture.LinkLoop, 113: capture.LinkSLL, 228: capture.LinkRaw,
		229: capture.LinkRaw, 276: capture.LinkSLL2, 105: capture.LinkUnknown, 65535: capture.LinkUnknown,
	} {
		f, frames, err := read(t, pcap(t, 2, number, false))
		if err != nil || len(frames) != 2 || frames[1].Link != want {
			t.Errorf("%d: %v, %+v", number, err, frames)
			continue
		}
		if other := f.Stats().Other; want == capture.LinkUnknown && other != 2 || want != capture.LinkUnknown && other != 0 {
			t.Errorf("%d: %+v", number, f.Stats())
		}
	}
	// The frame check sequence length that some writers put above the link type.
	file := pcap(t, 1, layers.LinkTypeEthernet, false)
	binary.LittleEndian.PutUint32(file[20:], 1|4<<28|1<<26)
	if _, frames, err := read(t, file); err != nil || frames[0].Link != capture.LinkEthernet {
		t.Errorf("%v, %+v", err, frames)
	}
}

// ngBlock is a pcapng block in the given byte order.
func ngBlock(order binary.AppendByteOrder, kind uint32, body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	length := uint32(len(body) + 12)
	b := order.AppendUint32(nil, kind)
	b = order.AppendUint32(b, length)
	return order.AppendUint32(append(b, body...), length)
}

func ngSection(order binary.AppendByteOrder) []byte {
	body := order.AppendUint32(nil, 0x1a2b3c4d)
	body = order.AppendUint16(body, 1)
	body = order.AppendUint16(body, 0)
	return ngBlock(order, blockSection, order.AppendUint64(body, 1<<64-1))
}

// ngInterface describes one with the given if_tsresol.
func ngInterface(order binary.AppendByteOrder, link uint16, resolution byte) []byte {
	body := order.AppendUint16(nil, link)
	body = order.AppendUint16(body, 0)
	body = order.AppendUint32(body, 0)
	body = order.AppendUint16(body, 9)
	body = order.AppendUint16(body, 1)
	body = append(body, resolution, 0, 0, 0)
	return ngBlock(order, blockInterface, order.AppendUint32(body, 0))
}

func ngPacket(order binary.AppendByteOrder, iface uint32, ticks uint64, data []byte, wire int) []byte {
	body := order.AppendUint32(nil, iface)
	body = order.AppendUint32(body, uint32(ticks>>32))
	body = order.AppendUint32(body, uint32(ticks))
	body = order.AppendUint32(body, uint32(len(data)))
	body = order.AppendUint32(body, uint32(wire))
	return ngBlock(order, blockEnhanced, append(body, data...))
}

// ngFile is a file with two interfaces, of which the second counts 2^-10 seconds,
// blocks to skip, and a second section.
func ngFile(order binary.AppendByteOrder) []byte {
	return bytes.Join([][]byte{
		ngSection(order),
		ngInterface(order, 1, 9),
		ngInterface(order, 276, 0x80|10),
		ngBlock(order, 4, make([]byte, 4)),
		ngPacket(order, 0, uint64(at.UnixNano()), payload(0), 70),
		ngBlock(order, 0xbad, make([]byte, 3<<20)),
		ngPacket(order, 1, 1000<<10|512, payload(1), 71),
		ngBlock(order, blockSimple, append(order.AppendUint32(nil, 62), payload(2)...)),
		ngSection(order),
		ngInterface(order, 101, 6),
		ngPacket(order, 0, 7, payload(3), 73),
	}, nil)
}

func TestPcapng(t *testing.T) {
	for _, c := range []struct {
		name string
		file []byte
	}{
		{"little-endian", ngFile(binary.LittleEndian)},
		{"big-endian", ngFile(binary.BigEndian)},
		{"gzip", zipped(t, ngFile(binary.LittleEndian))},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, frames, err := read(t, c.file)
			if err != nil || f.Cut() || len(frames) != 4 {
				t.Fatalf("%d frames, cut %v, %v", len(frames), f.Cut(), err)
			}
			for i, want := range []capture.Frame{
				{Time: at.UnixNano(), WireLen: 70, Link: capture.LinkEthernet},
				{Time: 1000.5e9, WireLen: 71, Link: capture.LinkSLL2},
				{Time: 0, WireLen: 62, Link: capture.LinkEthernet},
				{Time: 7e3, WireLen: 73, Link: capture.LinkRaw},
			} {
				got := frames[i]
				if got.Time != want.Time || got.WireLen != want.WireLen || got.Link != want.Link || !bytes.Equal(got.Data, payload(i)) {
					t.Errorf("frame %d: %+v, want %+v", i, got, want)
				}
			}
		})
	}
}

// A file by pcapgo's own writer.
func TestPcapngWriter(t *testing.T) {
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
	must(t, err)
	second, err := w.AddInterface(pcapgo.NgInterface{Name: "tun0", LinkType: layers.LinkTypeRaw, TimestampResolution: 9})
	must(t, err)
	for i := range 4 {
		ci := info(i, 60+i, 70+i)
		ci.InterfaceIndex = i % 2 * second
		must(t, w.WritePacket(ci, payload(i)))
	}
	must(t, w.Flush())
	_, frames, err := read(t, b.Bytes())
	must(t, err)
	if len(frames) != 4 || frames[2].Link != capture.LinkEthernet || frames[3].Link != capture.LinkRaw ||
		frames[3].Time != at.Add(3*time.Second).UnixNano() || frames[3].WireLen != 73 {
		t.Errorf("%+v", frames)
	}
}

// Wherever a file is cut, the whole packets before come out, and it is known
// whether a record was cut.
func TestCut(t *testing.T) {
	little := binary.LittleEndian
	for _, c := range []struct {
		name   string
		file   []byte
		header int
		ends   []int // of the packets
	}{
		{"pcap", pcap(t, 3, layers.LinkTypeEthernet, false), 24, []int{100, 177, 255}},
		{"pcapng", bytes.Join([][]byte{
			ngSection(little), ngInterface(little, 1, 6), ngPacket(little, 0, 1, payload(0), 60), ngPacket(little, 0, 2, payload(0), 60),
		}, nil), 28, []int{60 + 92, 60 + 92*2}},
	} {
		for size := range c.file {
			f, frames, err := read(t, c.file[:size])
			if size < c.header {
				if err == nil {
					t.Errorf("%s, %d bytes: no error", c.name, size)
				}
				continue
			}
			whole, between := 0, size == c.header || c.name == "pcapng" && size == 60
			for _, end := range c.ends {
				if size >= end {
					whole++
				}
				between = between || size == end
			}
			if err != nil || len(frames) != whole || f.Cut() == between {
				t.Errorf("%s, %d bytes: %d frames, cut %v, %v; want %d, %v", c.name, size, len(frames), f.Cut(), err, whole, !between)
			}
		}
	}
	file := zipped(t, pcap(t, 1000, layers.LinkTypeEthernet, false))
	if f, frames, err := read(t, file[:len(file)/2]); err != nil || !f.Cut() || len(frames) == 0 {
		t.Errorf("gzip: %d frames, %v", len(frames), err)
	}
}

func TestDamaged(t *testing.T) {
	little := binary.LittleEndian
	long := pcap(t, 3, layers.LinkTypeEthernet, false)
	binary.LittleEndian.PutUint32(long[24+76+8:], maxRecord+1)
	binary.LittleEndian.PutUint32(long[16:], 1<<31) // a snap length that would allow it
	sum := zipped(t, pcap(t, 3, layers.LinkTypeEthernet, false))
	sum[len(sum)-6] ^= 1
	lie := ngPacket(little, 0, 1, payload(0), 60)
	little.PutUint32(lie[20:], 1<<31)
	head := append(ngSection(little), ngInterface(little, 1, 6)...)
	good := ngPacket(little, 0, 1, payload(0), 60)
	for _, c := range []struct {
		name   string
		file   []byte
		frames int
		want   string
	}{
		{"record too long", long, 1, "damaged after 1 packets"},
		{"gzip checksum", sum, 3, "damaged after 3 packets"},
		{"pcapng length", bytes.Join([][]byte{head, good, {6, 0, 0, 0, 7, 0, 0, 0}}, nil), 1, "damaged after 1 packets: a block of 7 bytes"},
		{"pcapng captured length", bytes.Join([][]byte{head, good, lie, make([]byte, 1<<20)}, nil), 1, "damaged after 1 packets"},
		{"pcapng captured length, and enough bytes", bytes.Join([][]byte{head, good, lie, bytes.Repeat(good, 1<<15)}, nil), 1, "a packet of 2147483648 bytes"},
		{"pcapng block of more than any packet", bytes.Join([][]byte{head, good, {6, 0, 0, 0, 0, 0, 64, 0}, make([]byte, 4<<20)}, nil), 1, "a packet of 4194304 bytes"},
		{"pcapng length at the end", bytes.Join([][]byte{head, good, good[:len(good)-4], {1, 2, 3, 4}}, nil), 1, "at its end"},
		{"pcapng block too short", bytes.Join([][]byte{head, good, ngBlock(little, 6, make([]byte, 12))}, nil), 1, "a block of type 6 and 24 bytes"},
		{"pcapng byte order", bytes.Join([][]byte{head, good, {0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 1, 1, 1, 1}}, nil), 1, "byte order"},
		{"pcapng packet too long", append(bytes.Clone(head), ngPacket(little, 0, 1, make([]byte, maxRecord+4), 0)...), 0, "a packet of"},
		{"pcapng without the interface", append(bytes.Clone(head), ngPacket(little, 1, 1, payload(0), 60)...), 0, "damaged after 0 packets"},
		{"too many interfaces", bytes.Join([][]byte{head, bytes.Repeat(ngInterface(little, 1, 6), maxInterfaces), good}, nil), 0, "more than 4096 interfaces"},
	} {
		f, frames, err := read(t, c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(frames) != c.frames || f.Cut() {
			t.Errorf("%s: %d frames, %v", c.name, len(frames), err)
		}
	}
	for _, file := range []string{"", "\x00", "hello, this is not a capture file"} {
		if _, err := New(strings.NewReader(file)); err == nil {
			t.Errorf("%q: opened", file)
		}
	}
	if _, err := New(strings.NewReader("")); !errors.Is(err, ErrEmpty) {
		t.Error(err)
	}
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.pcap")
	must(t, os.WriteFile(path, pcap(t, 2, layers.LinkTypeEthernet, false), 0o600))
	f, err := Open(path)
	must(t, err)
	must(t, f.Run(t.Context(), func(*capture.Frame) {}))
	must(t, f.Close())
	if _, err := Open(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	must(t, os.WriteFile(path, []byte("no capture"), 0o600))
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
}

func TestRunEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f, err := New(bytes.NewReader(pcap(t, 10, layers.LinkTypeEthernet, false)))
	must(t, err)
	if err := f.Run(ctx, func(*capture.Frame) { cancel() }); !errors.Is(err, context.Canceled) || f.Stats().Frames != 1 {
		t.Errorf("%v, %+v", err, f.Stats())
	}
}

// Packets cost no allocations, whatever the file costs.
func TestNoAllocationPerPacket(t *testing.T) {
	var b bytes.Buffer
	b.Write(ngSection(binary.LittleEndian))
	b.Write(ngInterface(binary.LittleEndian, 1, 6))
	for i := range 1000 {
		b.Write(ngPacket(binary.LittleEndian, 0, uint64(i), payload(0), 200))
	}
	for name, file := range map[string][]byte{
		"pcap":   pcap(t, 1000, layers.LinkTypeEthernet, false),
		"pcapng": b.Bytes(),
	} {
		allocs := testing.AllocsPerRun(5, func() {
			f, err := New(bytes.NewReader(file))
			must(t, err)
			must(t, f.Run(context.Background(), func(*capture.Frame) {}))
			if f.Stats().Frames != 1000 {
				t.Fatal(f.Stats())
			}
		})
		if allocs > 50 {
			t.Errorf("%s: %v allocations for 1000 packets", name, allocs)
		}
	}
}

// Memory stays bounded however long a file goes on about other things.
func TestMemoryIsBounded(t *testing.T) {
	little := binary.LittleEndian
	names := ngBlock(little, 4, append([]byte{1, 0, 64, 0}, make([]byte, 64+4)...))
	secrets := ngBlock(little, 10, append([]byte{'K', 'S', 'L', 'T', 0, 0, 1, 0}, make([]byte, 65536)...))
	noise := append(bytes.Repeat(names, 1000), secrets...)
	rounds := 300 // 45 MB
	file := io.MultiReader(bytes.NewReader(append(ngSection(little), ngInterface(little, 1, 6)...)), &repeat{data: noise, left: rounds})
	f, err := New(file)
	must(t, err)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	must(t, f.Run(t.Context(), func(*capture.Frame) {}))
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("allocated %d bytes", grown)
	}
}

type repeat struct {
	data []byte
	at   int
	left int
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.data[r.at:])
	if r.at += n; r.at == len(r.data) {
		r.at, r.left = 0, r.left-1
	}
	return n, nil
}

// Any bytes end in nil or an error, with frames no longer than a record may be
// and no more of them than there are bytes for.
func FuzzPcap(f *testing.F) {
	f.Add(pcap(f, 2, layers.LinkTypeEthernet, true))
	f.Add(bigEndian(pcap(f, 2, layers.LinkTypeEthernet, true)))
	f.Add(bytes.Join([][]byte{
		ngSection(binary.LittleEndian), ngInterface(binary.LittleEndian, 1, 6),
		ngPacket(binary.LittleEndian, 0, 1, payload(1), 60),
		ngBlock(binary.LittleEndian, blockSimple, append(binary.LittleEndian.AppendUint32(nil, 61), payload(1)...)),
		ngSection(binary.BigEndian), ngInterface(binary.BigEndian, 1, 0x80|20),
		ngPacket(binary.BigEndian, 0, 1, payload(1), 60),
	}, nil))
	f.Add(zipped(f, pcap(f, 2, layers.LinkTypeEthernet, false)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2 && binary.BigEndian.Uint16(data) == magicGzip {
			r, err := gzip.NewReader(bytes.NewReader(data))
			if err != nil {
				return
			}
			if data, err = io.ReadAll(io.LimitReader(r, 1<<20)); err != nil {
				return
			}
		}
		file, err := New(bytes.NewReader(data))
		if err != nil {
			return
		}
		var n int
		_ = file.Run(context.Background(), func(frame *capture.Frame) {
			n++
			if len(frame.Data) > maxRecord || frame.WireLen < len(frame.Data) {
				t.Fatalf("%d of %d bytes", len(frame.Data), frame.WireLen)
			}
		})
		if n > len(data)/12 {
			t.Fatalf("%d frames in %d bytes", n, len(data))
		}
	})
}

func BenchmarkRun(b *testing.B) {
	const packets = 20000
	header := pcap(b, 1, layers.LinkTypeEthernet, false)
	file := append(header, bytes.Repeat(header[24:], packets-1)...)
	b.ReportAllocs()
	for b.Loop() {
		f, err := New(bytes.NewReader(file))
		if err != nil {
			b.Fatal(err)
		}
		if err := f.Run(context.Background(), func(*capture.Frame) {}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets*b.N), "ns/packet")
}
