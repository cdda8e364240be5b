// Package pcapfile reads captures: pcap (micro- and nanoseconds, both byte
// orders) and pcapng, gzipped or not. In: a file or a stream. Out:
// capture.Frames with the times of the records, in the order of the file.
package pcapfile

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"portsentry/internal/capture"
)

const (
	// maxRecord is the largest packet taken, in bytes: libpcap's own limit.
	maxRecord = 256 << 10
	// maxInterfaces is how many interfaces a pcapng section may describe.
	maxInterfaces = 4096
)

// First four bytes of a file, read in big-endian order.
const (
	magicGzip = 0x1f8b // the first two
	magicNg   = 0x0a0d0d0a

	magicMicroBig    = 0xa1b2c3d4 // pcap by a big-endian writer
	magicNanoBig     = 0xa1b23c4d
	magicMicroLittle = 0xd4c3b2a1
	magicNanoLittle  = 0x4d3cb2a1
)

// File is an open capture.
type File struct {
	name   string
	closer io.Closer // nil: not ours
	next   func() ([]byte, gopacket.CaptureInfo, error)
	link   capture.Link     // of a pcap file; a pcapng packet brings its own
	ng     *pcapgo.NgReader // nil: pcap
	sieve  *sieve           // what ng reads from
	cut    atomic.Bool

	frames, unknown atomic.Uint64
}

var _ capture.Source = (*File)(nil)

// Open opens the capture at path.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("pcapfile: %w", err)
	}
	file, err := newFile(path, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	file.closer = f
	return file, nil
}

// New reads a capture from r. While r blocks, so does Run.
func New(r io.Reader) (*File, error) { return newFile("capture", r) }

func newFile(name string, r io.Reader) (*File, error) {
	fail := func(err error) (*File, error) {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("ends before the first packet: %w", io.ErrUnexpectedEOF)
		}
		return nil, fmt.Errorf("pcapfile: %s: %w", name, err)
	}
	in := bufio.NewReaderSize(r, 64<<10)
	magic, err := in.Peek(4)
	if err == nil && binary.BigEndian.Uint16(magic) == magicGzip {
		var unzip *gzip.Reader
		if unzip, err = gzip.NewReader(in); err == nil {
			in = bufio.NewReaderSize(unzip, 64<<10)
			magic, err = in.Peek(4)
		}
	}
	if err != nil {
		return fail(err)
	}
	f := &File{name: name}
	switch m := binary.BigEndian.Uint32(magic); m {
	case magicMicroBig, magicNanoBig, magicMicroLittle, magicNanoLittle:
		r, err := pcapgo.NewReader(in)
		if err != nil {
			return fail(err)
		}
		r.SetSnaplen(min(r.Snaplen(), maxRecord)) // longer records are refused
		f.next, f.link = r.ZeroCopyReadPacketData, linkOf(r.LinkType())
	case magicNg:
		f.sieve = &sieve{in: in, budget: maxBetween}
		r, err := pcapgo.NewNgReader(f.sieve, pcapgo.NgReaderOptions{WantMixedLinkType: true})
		if err != nil {
			return fail(cmp.Or(f.sieve.err, err))
		}
		f.next, f.ng = r.ZeroCopyReadPacketData, r
	default:
		return fail(fmt.Errorf("neither pcap nor pcapng (begins with %08x)", m))
	}
	return f, nil
}

// Run hands every packet to handle and returns nil at the end of the file; see
// Cut for one that ends in the middle of a record. A damaged file is an error
// that says how many packets came before. When ctx ends first Run returns its
// error, as the file was not read to the end.
//
// Frame.Time is 0 in pcapng simple packet blocks, which have no time, and a
// little off where a pcapng interface counts in powers of two (pcapgo rounds).
// Frame.IfIndex is always 0: files number interfaces by a count of their own.
func (f *File) Run(ctx context.Context, handle capture.Handler) error {
	var frame capture.Frame
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, info, err := f.record()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("pcapfile: %s: damaged after %d packets: %w", f.name, f.frames.Load(), err)
		}
		frame = capture.Frame{Data: data, WireLen: max(info.Length, len(data)), Link: f.link}
		if f.ng != nil {
			frame.Link = linkOf(info.AncillaryData[0].(layers.LinkType))
		}
		if !info.Timestamp.IsZero() {
			frame.Time = info.Timestamp.UnixNano()
		}
		if frame.Link == capture.LinkUnknown {
			f.unknown.Add(1)
		}
		f.frames.Add(1)
		handle(&frame)
	}
}

// record reads the next packet. The error is io.EOF where nothing follows.
func (f *File) record() ([]byte, gopacket.CaptureInfo, error) {
	if f.sieve != nil {
		f.sieve.budget = maxBetween
	}
	data, info, err := f.next()
	switch {
	case err == nil && info.CaptureLength > maxRecord:
		err = fmt.Errorf("a packet of %d bytes", info.CaptureLength)
	case err == nil && f.ng != nil && f.ng.NInterfaces() > maxInterfaces:
		err = fmt.Errorf("more than %d interfaces", maxInterfaces)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if f.sieve != nil && f.sieve.err != nil {
			return nil, info, f.sieve.err
		}
		// pcap: the end directly behind a record's header comes as io.EOF.
		if err != io.EOF || f.ng == nil && info.CaptureLength > 0 || f.sieve != nil && f.sieve.cut {
			f.cut.Store(true)
		}
		err = io.EOF
	}
	return data, info, err
}

// Cut reports whether the file ended in the middle of a record, as it does when
// the capturing program was killed. Every whole packet has been delivered.
func (f *File) Cut() bool { return f.cut.Load() }

// Stats counts packets. Those of a link type that nobody here understands are
// handed over as capture.LinkUnknown and are in Other as well as in Frames.
func (f *File) Stats() capture.Stats {
	return capture.Stats{Frames: f.frames.Load(), Other: f.unknown.Load()}
}

// Close closes what Open opened.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// linkOf maps link-layer types (www.tcpdump.org/linktypes.html; 12 and 14 are
// what DLT_RAW was on some systems).
func linkOf(t layers.LinkType) capture.Link {
	switch t {
	case 1:
		return capture.LinkEthernet
	case 113:
		return capture.LinkSLL
	case 276:
		return capture.LinkSLL2
	case 12, 14, 101, 228, 229:
		return capture.LinkRaw
	case 0:
		return capture.LinkNull
	case 108:
		return capture.LinkLoop
	case 9, 50:
		return capture.LinkPPP
	}
	return capture.LinkUnknown
}
