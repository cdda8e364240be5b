// Package pcapfile reads captures: pcap (micro- and nanoseconds, both byte
// orders) and pcapng, gzipped or not. In: a file or a stream. Out:
// capture.Frames with the times of the records, in the order of the file.
package pcapfile

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"

	"portsentry/internal/capture"
)

const (
	// maxRecord is the largest packet taken, in bytes: libpcap's own limit.
	maxRecord = 256 << 10
	// maxInterfaces is how many interfaces a pcapng section may describe.
	maxInterfaces = 4096
	// bufferLen holds any record that is taken, with its header and options.
	bufferLen = 2 * maxRecord
)

// First four bytes of a file, read in big-endian order.
const (
	magicGzip = 0x1f8b // the first two
	magicNg   = 0x0a0d0d0a
)

// File is an open capture.
type File struct {
	name   string
	closer io.Closer // nil: not ours
	in     reader
	bytes  *input // what in reads from
	zipped bool
	cut    atomic.Bool

	frames, unknown atomic.Uint64
}

// reader reads the records of one format.
type reader interface {
	// next fills the data, lengths, time and link of f, whose data are valid until
	// it is called again. The error is io.EOF where the file ends behind a whole
	// record, io.ErrUnexpectedEOF where it ends inside of one.
	next(f *capture.Frame) error
}

var _ capture.Source = (*File)(nil)

// ErrEmpty is the error for a file without a single byte.
var ErrEmpty = errors.New("empty")

// FormatError is the error for what is no capture.
type FormatError struct{ Begins []byte } // four bytes, or what there was

func (e *FormatError) Error() string {
	return fmt.Sprintf("neither pcap nor pcapng (begins with %x)", e.Begins)
}

// DamageError is the error for a capture that goes wrong.
type DamageError struct {
	Packets uint64 // that came before
	Err     error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("damaged after %d packets: %v", e.Packets, e.Err)
}
func (e *DamageError) Unwrap() error { return e.Err }

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
	// Of a file that is not zipped, all but the first bytes go past this buffer.
	plain := bufio.NewReaderSize(r, 16<<10)
	in := newInput(plain)
	f := &File{name: name, bytes: in}
	magic, err := plain.Peek(4)
	if err == nil && binary.BigEndian.Uint16(magic) == magicGzip {
		if in.from, err = gzip.NewReader(plain); err == nil {
			f.zipped = true
			magic, err = in.peek(4)
		}
	}
	switch {
	case err == io.EOF && len(magic) == 0:
		return fail(ErrEmpty)
	case err == io.EOF:
		return fail(&FormatError{append([]byte{}, magic...)})
	case err != nil:
		return fail(err)
	}
	if binary.BigEndian.Uint32(magic) == magicNg {
		f.in, err = newNg(in)
	} else {
		f.in, err = newClassic(in)
	}
	if err != nil {
		return fail(err)
	}
	return f, nil
}

// Run hands every packet to handle and returns nil at the end of the file; see
// Cut for one that ends in the middle of a record. A damaged file is a
// *DamageError. When ctx ends first Run returns its error, as the file was not
// read to the end.
//
// Frame.Time is 0 in pcapng simple packet blocks, which have no time.
// Frame.IfIndex is always 0: files number interfaces by a count of their own.
func (f *File) Run(ctx context.Context, handle capture.Handler) error {
	if f.zipped && runtime.GOMAXPROCS(0) > 1 {
		a := readAhead(f.bytes.from)
		f.bytes.from = a
		defer a.close()
	}
	var frame capture.Frame
	var n, unknown uint64
	defer func() { f.count(n, unknown) }()
	for {
		if n%countEvery == 0 {
			f.count(n, unknown)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch err := f.in.next(&frame); {
		case err == nil:
		case err == io.EOF:
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			f.cut.Store(true)
			return nil
		default:
			return fmt.Errorf("pcapfile: %s: %w", f.name, &DamageError{n, err})
		}
		if frame.Link == capture.LinkUnknown {
			unknown++
		}
		n++
		handle(&frame)
	}
}

// countEvery is after how many packets the counters are brought up to date: that other
// goroutines may look at them costs about as much as a packet's way from the file.
const countEvery = 64

func (f *File) count(frames, unknown uint64) {
	f.frames.Store(frames)
	f.unknown.Store(unknown)
}

// Cut reports whether the file ended in the middle of a record, as it does when
// the capturing program was killed. Every whole packet has been delivered.
func (f *File) Cut() bool { return f.cut.Load() }

// Stats counts packets. Those of a link type that nobody here understands are
// handed over as capture.LinkUnknown and are in Other as well as in Frames. While Run
// runs, up to countEvery of the last packets are missing.
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
func linkOf(t uint16) capture.Link {
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
