package xdp

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What stands before the bytes of a record in a BPF ring buffer
// (Documentation/bpf/ringbuf.rst): 32 bits of flags and length, 32 bits of the
// kernel's own, in the machine's byte order.
const (
	busy       = 1 << 31 // being written
	discarded  = 1 << 30
	headerSize = 8
	alignment  = 8 // of records
)

var errCorrupt = errors.New("xdp: the ring makes no sense")

// ring is the reader's side of a BPF ring buffer. Positions are bytes since it
// was made; the offset in data is a position modulo size.
type ring struct {
	// consumer is an unsigned long of the kernel. All 64 bits are written, even
	// where that has 32: a process of 32 bits may run under a kernel of 64.
	consumer *atomic.Uint64
	producer *atomic.Uintptr // likewise; its low bits do
	data     []byte          // twice the ring on end, so that no record wraps
	size     uint64
	next     uint64 // position of the record to be read next

	maps [][]byte
}

// mapRing maps the ring buffer m.
func mapRing(m *ebpf.Map) (*ring, error) {
	page, size := os.Getpagesize(), int(m.MaxEntries())
	mine, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("xdp: map consumer position: %w", err)
	}
	theirs, err := unix.Mmap(m.FD(), int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("xdp: map ring of %d bytes: %w", size, err), unix.Munmap(mine))
	}
	r := newRing(mine, theirs[:page], theirs[page:])
	r.maps = [][]byte{mine, theirs}
	return r, nil
}

// newRing goes on where the last reader ended.
func newRing(consumer, producer, data []byte) *ring {
	r := &ring{
		consumer: (*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(consumer))),
		producer: (*atomic.Uintptr)(unsafe.Pointer(unsafe.SliceData(producer))),
		data:     data, size: uint64(len(data) / 2),
	}
	r.next = r.consumer.Load()
	return r
}

func (r *ring) unmap() error {
	var errs []error
	for _, m := range r.maps {
		errs = append(errs, unix.Munmap(m))
	}
	return errors.Join(errs...)
}

// waiting is how many bytes of records have been begun and not been read.
func (r *ring) waiting() uint64 { return uint64(r.producer.Load() - uintptr(r.next)) }

// read gives the next record of those that end before the position end, which
// is valid until release. Nil without an error: it is still being written, or
// there is none. One that the program took back is empty, and not nil.
func (r *ring) read(end uint64) ([]byte, error) {
	left := end - r.next
	if left == 0 {
		return nil, nil
	}
	at := r.next % r.size
	if left < headerSize || left > r.size || at%alignment != 0 {
		return nil, errCorrupt
	}
	header := (*atomic.Uint32)(unsafe.Pointer(&r.data[at])).Load()
	if header&busy != 0 {
		return nil, nil
	}
	length := uint64(header &^ discarded)
	whole := (headerSize + length + alignment - 1) &^ (alignment - 1)
	if whole > left {
		return nil, errCorrupt
	}
	r.next += whole
	at += headerSize
	if header&discarded != 0 {
		length = 0
	}
	return r.data[at : at+length : at+length], nil
}

// release gives the program the room of all that was read.
func (r *ring) release() { r.consumer.Store(r.next) }
