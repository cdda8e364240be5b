// Package afpacket captures on live interfaces. In: packets that arrive on this
// host, filtered in the kernel by a classic BPF program down to what can matter
// to a port list. Out: capture.Frames from a memory-mapped TPACKET_V3 ring, link
// header taken off, without a copy or an allocation.
//
// One ring of fixed size serves all interfaces and is divided among the
// workers; a worker gets all packets of a source address, in order. Packets are
// seen as they arrive, before any firewall, and nothing that XDP dropped.
package afpacket

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
)

const (
	// MaxRingBytes is the memory budget of all workers together.
	MaxRingBytes = 8 << 20
	// minBlocks per worker: the kernel needs one to fill while we read another.
	minBlocks = 2
	// maxWorkers is a sane bound; the memory is shared.
	maxWorkers = MaxRingBytes / (minBlocks * blockSize)
)

// Config says what to capture and with what means.
type Config struct {
	TCP, UDP  config.PortSet // destination ports that matter
	Scans     bool           // so does whatever may begin something: see SetScans
	Workers   int            // sockets that share the work, each for one goroutine; 0: 1
	RingBytes int            // memory of all rings together; 0: MaxRingBytes, which is also the most
}

// Ring captures on a changing set of interfaces, for a changing set of ports.
// SetInterfaces and SetPorts may be called from any goroutine, also while the
// workers run; they wait for each other.
type Ring struct {
	workers []*Worker
	watched atomic.Pointer[watched]

	mu   sync.Mutex // one change of the filter at a time; guards spec
	spec Spec       // that the workers' filters are made from
}

// Open opens the sockets in the network namespace of the calling thread. It
// needs CAP_NET_RAW, which nothing later does. No frame is delivered before
// SetInterfaces.
func Open(c Config) (*Ring, error) {
	workers, size := max(c.Workers, 1), c.RingBytes
	if size == 0 {
		size = MaxRingBytes
	}
	blocks := size / blockSize / workers
	switch {
	case workers > maxWorkers:
		return nil, fmt.Errorf("afpacket: %d workers, at most %d", workers, maxWorkers)
	case size > MaxRingBytes:
		return nil, fmt.Errorf("afpacket: ring of %d bytes, at most %d", size, MaxRingBytes)
	case blocks < minBlocks:
		return nil, fmt.Errorf("afpacket: ring of %d bytes, at least %d for %d workers", size, workers*minBlocks*blockSize, workers)
	}
	r := &Ring{spec: Spec{TCP: slices.Clone(c.TCP), UDP: slices.Clone(c.UDP), Scans: c.Scans, IfIndexes: nowhere()}}
	r.watched.Store(new(watched))
	fds := make([]int, 0, workers)
	for range workers {
		fd, ring, err := openSocket(blocks)
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		w, err := newWorker(fd, ring, &r.watched)
		if err != nil {
			return nil, errors.Join(err, unix.Munmap(ring), r.Close())
		}
		r.workers, fds = append(r.workers, w), append(fds, fd)
	}
	if workers > 1 {
		if err := join(fds); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// Workers gives the workers. Each is to be Run by a goroutine of its own; all
// of them must run, as each has packets that no other gets.
func (r *Ring) Workers() []*Worker { return slices.Clone(r.workers) }

// nowhere is for Spec what no interface matches.
func nowhere() []int32 { return []int32{0} }

// watched says which interfaces are watched, and until when those of before were.
type watched struct {
	now, before []int32 // sorted
	left        int64   // unix nanoseconds
}

func (w *watched) has(index int32, at int64) bool {
	_, found := slices.BinarySearch(w.now, index)
	if !found && at < w.left {
		_, found = slices.BinarySearch(w.before, index)
	}
	return found
}

// SetInterfaces replaces the set of watched interfaces; an empty one watches
// nothing. Frames of an interface that left it may still lie in the ring: those
// that came while it was watched are delivered, others counted as Other. After an
// error, call it again: some workers may lack the new interfaces.
func (r *Ring) SetInterfaces(indexes []int32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := watched{now: slices.Clone(indexes), before: r.watched.Load().now, left: math.MaxInt64}
	slices.Sort(next.now)
	next.now = slices.Compact(next.now)

	spec := r.spec
	spec.IfIndexes = next.now
	if len(next.now) == 0 {
		spec.IfIndexes = nowhere()
	}
	r.watched.Store(&next) // first, so that no new frame counts as Other
	r.spec = spec
	err := r.attach(spec)
	settled := next
	settled.left = time.Now().UnixNano()
	r.watched.Store(&settled)
	return err
}

// SetPorts replaces the ports. The kernel swaps a worker's filter between two
// packets, so none to a port of both sets is lost or seen twice. Frames to ports
// that left may still lie in the ring and are delivered. With two empty sets
// nothing is captured. After an error the old ports are captured as before.
func (r *Ring) SetPorts(tcp, udp config.PortSet) error {
	return r.change(func(spec *Spec) { spec.TCP, spec.UDP = slices.Clone(tcp), slices.Clone(udp) })
}

// SetScans says whether packets matter that may begin something, whatever their
// port: TCP without ACK, what SCTP and ICMP begin or ask with, IP protocols that
// nobody speaks. Of datagrams only those to the ports of SetPorts do. It is like
// SetPorts otherwise.
func (r *Ring) SetScans(on bool) error { return r.change(func(spec *Spec) { spec.Scans = on }) }

func (r *Ring) change(edit func(*Spec)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	spec := r.spec
	edit(&spec)
	if err := r.attach(spec); err != nil {
		return errors.Join(err, r.attach(r.spec))
	}
	r.spec = spec
	return nil
}

// attach gives every worker the filter for spec.
func (r *Ring) attach(spec Spec) error {
	for _, w := range r.workers {
		var err error
		cerr := w.conn.Control(func(fd uintptr) { err = attachFilter(int(fd), spec) })
		if err = errors.Join(cerr, err); err != nil {
			return fmt.Errorf("afpacket: replace filter: %w", err)
		}
	}
	return nil
}

// Close ends the workers that still run, waits for them and frees the rings.
// It must not be called from a Handler.
func (r *Ring) Close() error {
	var errs []error
	for _, w := range r.workers {
		errs = append(errs, w.close())
	}
	return errors.Join(errs...)
}
