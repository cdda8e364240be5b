// Package xdp reads what the XDP program tells. In: the ring buffers of a
// bpf.Sensor, one a worker, and its table of probes for which a ring had no room.
// Out: capture.Events of packets that the program has read, capture.Frames of
// those that it could not, without a copy or an allocation.
//
// A worker gets all there is of a source address, in order. It sleeps only when
// nothing has come for a while: the first event wakes it, and as long as more
// come it looks by itself, some tens of times a second or as often as the pace
// demands, and the program wakes nobody.
package xdp

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
)

// Source reads the rings of a Sensor.
type Source struct {
	sensor   *bpf.Sensor
	workers  []*Worker
	sleepers []byte // mapped: a word for each worker
	watches  atomic.Bool

	attaching sync.Mutex

	looking sync.Mutex // one look at a time; guards counted
	counted uint64     // the program's counter at the last look
}

// Open maps the rings of s. What they hold already is delivered.
func Open(s *bpf.Sensor) (*Source, error) {
	x := &Source{sensor: s}
	var err error
	x.sleepers, err = unix.Mmap(s.Sleepers().FD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("xdp: map who sleeps: %w", err)
	}
	for i, m := range s.Rings() {
		r, err := mapRing(m)
		if err != nil {
			return nil, errors.Join(err, x.Close())
		}
		asleep := (*atomic.Uint32)(unsafe.Pointer(&x.sleepers[i*bpf.SleeperStride]))
		w, err := newWorker(x, r, asleep, m.FD())
		if err != nil {
			return nil, errors.Join(err, r.unmap(), x.Close())
		}
		x.workers = append(x.workers, w)
	}
	return x, nil
}

// Workers gives the workers. Each is to be Run by a goroutine of its own; all of
// them must run, as each has sources that no other gets.
func (x *Source) Workers() []*Worker { return slices.Clone(x.workers) }

// SetAnswers says whether anybody is answered. Where nobody is, what comes waits a
// little longer, to be read with what comes behind it. Any goroutine may call it.
func (x *Source) SetAnswers(answers bool) { x.watches.Store(!answers) }

// SetInterfaces lets the program run on these interfaces, which are those of the
// calling thread's network namespace, and on no others. What runs stays
// untouched. The program runs in the driver; where that cannot, behind it if
// generic. It gives the errors by interface: bpf.ErrOccupied, bpf.ErrNoNative
// or another for where the program does not run, and of interfaces not among
// these what went wrong with taking it off.
func (x *Source) SetInterfaces(indexes []int32, generic bool) map[int32]error {
	x.attaching.Lock()
	defer x.attaching.Unlock()
	errs := make(map[int32]error)
	for ifindex, isGeneric := range x.sensor.Attached() {
		if slices.Contains(indexes, ifindex) && (generic || !isGeneric) {
			continue
		}
		if err := x.sensor.Detach(ifindex); err != nil {
			errs[ifindex] = fmt.Errorf("xdp: take the program off: %w", err)
		}
	}
	for _, ifindex := range indexes {
		err := x.sensor.Attach(ifindex, false)
		if generic && errors.Is(err, bpf.ErrNoNative) {
			err = x.sensor.Attach(ifindex, true)
		}
		if err != nil {
			errs[ifindex] = err
		}
	}
	return errs
}

// Close ends all Runs, waits for them, and unmaps the rings. The program goes on
// where it runs; the Sensor is its owner's to close, after this. It is harmless
// to call it twice.
func (x *Source) Close() error {
	var errs []error
	for _, w := range x.workers {
		errs = append(errs, w.close())
	}
	if x.sleepers != nil {
		errs = append(errs, unix.Munmap(x.sleepers))
		x.sleepers = nil
	}
	return errors.Join(errs...)
}
