package afpacket

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
)

// Worker is one socket of a Ring with its share of the memory.
type Worker struct {
	file   *os.File // the socket, on the runtime's poller
	conn   syscall.RawConn
	ring   []byte
	next   int // offset in ring of the block that the kernel fills next
	frame  capture.Frame
	closed atomic.Bool

	watched *atomic.Pointer[watched] // the Ring's

	run    sync.Mutex // held by Run; by Close for good
	frames atomic.Uint64
	other  atomic.Uint64

	stats           sync.Mutex // for what follows: reading the kernel's counters resets them
	dropped, frozen uint64
}

var _ capture.Source = (*Worker)(nil)

// newWorker takes over fd, but not the ring before it succeeds.
func newWorker(fd int, ring []byte, watched *atomic.Pointer[watched]) (*Worker, error) {
	w := &Worker{file: os.NewFile(uintptr(fd), "packet"), ring: ring, watched: watched}
	var err error
	if w.conn, err = w.file.SyscallConn(); err == nil {
		err = w.file.SetReadDeadline(time.Time{}) // fails without a poller, and then Run could not be ended
	}
	if err != nil {
		return nil, fmt.Errorf("afpacket: poll packet socket: %w", errors.Join(err, w.file.Close()))
	}
	return w, nil
}

// Run hands every frame from a watched interface to handle until ctx ends, then
// returns nil; after Ring.Close it returns os.ErrClosed. Frames that lie in the
// ring by then are not delivered.
func (w *Worker) Run(ctx context.Context, handle capture.Handler) error {
	if !w.run.TryLock() {
		if w.closed.Load() {
			return fmt.Errorf("afpacket: run: %w", os.ErrClosed)
		}
		return errors.New("afpacket: run: this worker is running")
	}
	defer w.run.Unlock()
	stop := context.AfterFunc(ctx, w.interrupt)
	defer stop()

	var socketErr error
	woken := false
	ready := func(fd uintptr) bool { // called before and after each wait; false: wait
		if w.current().ready() {
			return true
		}
		if woken {
			// Woken without a block: an error, which reading it clears. An interface
			// that goes down is none of ours, it may come up again.
			if err := pendingError(int(fd)); err != nil && !errors.Is(err, unix.ENETDOWN) {
				socketErr = err
				return true
			}
		}
		woken = true
		return false
	}
	for {
		for ctx.Err() == nil && !w.closed.Load() && w.current().ready() {
			if err := w.deliver(w.current(), handle); err != nil {
				return err
			}
			w.current().release()
			if w.next += blockSize; w.next == len(w.ring) {
				w.next = 0
			}
		}
		woken = false
		err := w.conn.Read(ready)
		switch {
		case w.closed.Load():
			return fmt.Errorf("afpacket: run: %w", os.ErrClosed)
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("afpacket: wait for packets: %w", err)
		case socketErr != nil:
			return fmt.Errorf("afpacket: packet socket: %w", socketErr)
		}
	}
}

// current is the block that comes next.
func (w *Worker) current() block { return block(w.ring[w.next : w.next+blockSize]) }

// interrupt makes Run's wait end, now and for ever.
func (w *Worker) interrupt() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) }

func (w *Worker) deliver(b block, handle capture.Handler) error {
	var frames, other uint64
	watched := w.watched.Load()
	last := int32(-1) // the interface found last; mostly the next packet's too
	at, err := b.first(), error(nil)
	for range b.packets() {
		if at, err = b.frame(at, &w.frame); err != nil {
			break
		}
		if w.frame.IfIndex != last {
			if !watched.has(w.frame.IfIndex, w.frame.Time) {
				other++
				continue
			}
			last = w.frame.IfIndex
		}
		frames++
		handle(&w.frame)
	}
	w.frames.Add(frames)
	w.other.Add(other)
	return err
}

// Stats gives the counters. Every packet that passed the filter is in Frames,
// Other or Dropped once it was delivered or lost; the rest lies in the ring.
func (w *Worker) Stats() capture.Stats {
	w.stats.Lock()
	defer w.stats.Unlock()
	// Fails after Close only, which has read the counters for the last time.
	_ = w.conn.Control(func(fd uintptr) {
		s, err := unix.GetsockoptTpacketStatsV3(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil {
			w.dropped += uint64(s.Drops)
			w.frozen += uint64(s.Freeze_q_cnt)
		}
	})
	return capture.Stats{Frames: w.frames.Load(), Dropped: w.dropped, Frozen: w.frozen, Other: w.other.Load()}
}

// pendingError reads the error that waits on a socket, which clears it.
func pendingError(fd int) error {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || errno == 0 {
		return err
	}
	return unix.Errno(errno)
}

// close ends Run, waits for it and gives the ring back.
func (w *Worker) close() error {
	if w.closed.Swap(true) {
		return nil
	}
	w.interrupt()
	w.run.Lock() // for good: nobody may touch the ring from here on
	w.Stats()
	return errors.Join(unix.Munmap(w.ring), w.file.Close())
}
