package xdp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/capture"
)

const (
	// A batch ends when it has so many records or bytes, or a quarter of the ring:
	// only then does the program get the room back.
	batchRecords = 256
	batchBytes   = 64 << 10

	// While something comes a worker looks every maxPause, or as soon as a
	// quarter of the ring may be full. It takes its time where nobody gets any
	// further by that: where the program keeps out whoever came, and where nobody is
	// answered (Source.SetAnswers). A wake-up costs as much as some hundred records.
	// The runtime's timers are no finer than minPause.
	maxPause   = 10 * time.Millisecond
	heldPause  = 25 * time.Millisecond
	watchPause = 40 * time.Millisecond
	minPause   = time.Millisecond

	// lookEvery is how often a worker that is awake asks whether its ring had no
	// room.
	lookEvery = 250 * time.Millisecond
)

// Stats are the counters of a worker since it was opened.
type Stats struct {
	Events      uint64 // handed to the EventHandler
	Frames      uint64 // handed to the Handler
	CountedLost uint64 // probes that were counted by source, and then lost: too many sources
	Unread      uint64 // records that hold nothing known
	Wakeups     uint64 // times it was woken from its sleep
}

// Worker is one ring with its reader.
type Worker struct {
	source *Source
	ring   *ring
	asleep *atomic.Uint32 // mapped: the program clears it and wakes
	file   *os.File       // the ring, on the runtime's poller
	conn   syscall.RawConn
	timer  *time.Timer
	closed atomic.Bool

	event  capture.Event
	frame  capture.Frame
	looked time.Time
	urgent bool          // since the last pause something came that the program does not keep out
	paused time.Duration // the last pause, since it slept

	run                                   sync.Mutex // held by Run; by close for good
	events, frames, lost, unread, wakeups atomic.Uint64

	mu      sync.Mutex
	counted []bpf.Event // of this worker's sources, at most maxCounted
	spare   []bpf.Event // takes the place of counted while that is handed out
}

// newWorker takes over the ring when it succeeds. fd stays the caller's.
func newWorker(x *Source, r *ring, asleep *atomic.Uint32, fd int) (*Worker, error) {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("xdp: descriptor of the ring: %w", err)
	}
	// The poller takes only what is said not to block.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("xdp: descriptor of the ring: %w", errors.Join(err, unix.Close(fd)))
	}
	w := &Worker{source: x, ring: r, asleep: asleep, file: os.NewFile(uintptr(fd), "ring"), timer: time.NewTimer(0)}
	if w.conn, err = w.file.SyscallConn(); err == nil {
		err = w.file.SetReadDeadline(time.Time{}) // fails without a poller, and then Run could not be ended
	}
	if err != nil {
		return nil, fmt.Errorf("xdp: poll ring: %w", errors.Join(err, w.file.Close()))
	}
	return w, nil
}

// Run hands out what the program tells until ctx ends, then what it has told
// before, and returns nil; after Source.Close it returns os.ErrClosed. What the
// program has read goes to events, what it could not read to frames, both on the
// calling goroutine. It is called once.
func (w *Worker) Run(ctx context.Context, events capture.EventHandler, frames capture.Handler) error {
	if !w.run.TryLock() {
		if w.closed.Load() {
			return fmt.Errorf("xdp: run: %w", os.ErrClosed)
		}
		return errors.New("xdp: run: this worker is running")
	}
	defer w.run.Unlock()
	stop := context.AfterFunc(ctx, w.interrupt)
	defer stop()
	defer w.asleep.Store(0)

	last, rested := time.Now(), false
	for {
		n, err := w.drain(ctx, events, frames)
		switch {
		case err != nil:
			return err
		case w.closed.Load():
			return fmt.Errorf("xdp: run: %w", os.ErrClosed)
		case ctx.Err() != nil:
			return w.finish(events, frames)
		}
		if n == 0 && rested {
			if err := w.sleep(events); err != nil {
				return err
			}
			last, rested, w.paused = time.Now(), false, 0
			continue
		}
		now := time.Now()
		pause := w.pause(n, now.Sub(last))
		last, rested, w.paused, w.urgent = now, pause > 0, pause, false
		if !rested {
			runtime.Gosched()
			continue
		}
		w.timer.Reset(pause)
		select {
		case <-w.timer.C:
		case <-ctx.Done():
		}
	}
}

// pause is how long the ring can be left alone after n bytes came in the given
// time: until a quarter of it is full at that pace. 0: not long enough to be
// worth a pause.
func (w *Worker) pause(n uint64, in time.Duration) time.Duration {
	if n == 0 { // without a pause before: more may come at any moment
		return minPause
	}
	quarter := float64(w.ring.size) / 4
	pause := time.Duration(min(float64(in)*quarter/float64(n), float64(w.longest())))
	if pause < minPause {
		return 0
	}
	return pause
}

// longest is the longest pause for now. It grows from one to the next: a flood comes
// faster than what came before it.
func (w *Worker) longest() time.Duration {
	longest := maxPause
	switch {
	case w.source.watches.Load():
		longest = watchPause
	case !w.urgent:
		longest = heldPause
	}
	return min(longest, max(maxPause, 2*w.paused))
}

// drain hands out what is in the ring, and says how many bytes that was. What comes
// meanwhile may wait for the next time. It ends early with ctx, or when the Source is
// closed.
func (w *Worker) drain(ctx context.Context, events capture.EventHandler, frames capture.Handler) (n uint64, err error) {
	for ctx.Err() == nil && !w.closed.Load() {
		end := w.ring.next + w.ring.waiting()
		got, err := w.batch(end, events, frames)
		n += got
		if err != nil || got == 0 {
			return n, err
		}
		if now := time.Now(); now.Sub(w.looked) >= lookEvery {
			w.looked = now
			if err := w.source.look(); err != nil {
				return n, err
			}
		}
		w.deliverCounted(events)
		if w.ring.next == end {
			return n, nil
		}
	}
	return n, nil
}

// batch hands out some of the records that end before the position end, and
// gives their room back.
func (w *Worker) batch(end uint64, events capture.EventHandler, frames capture.Handler) (n uint64, err error) {
	r := w.ring
	first, most := r.next, min(batchBytes, r.size/4)
	var record []byte
	var epoch int64
	var told, framed, unread uint64
	for range batchRecords {
		if record, err = r.read(end); record == nil {
			break
		}
		if len(record) > 0 { // else the program took it back
			if epoch == 0 {
				epoch = programEpoch()
			}
			e, rest := parse(record)
			switch {
			case e == nil:
				unread++
			case e.What == bpf.WhatRaw:
				fillFrame(&w.frame, e, rest, epoch)
				framed++
				w.urgent = true
				frames(&w.frame)
			default:
				kind := kindOf(e.What)
				if kind == 0 {
					unread++
					break
				}
				fill(&w.event, e, kind, epoch)
				told++
				w.urgent = w.urgent || !w.event.Held
				events(&w.event)
			}
		}
		if r.next-first >= most {
			break
		}
	}
	if n = r.next - first; n > 0 {
		r.release()
		w.events.Add(told)
		w.frames.Add(framed)
		w.unread.Add(unread)
	}
	return n, err
}

// sleep returns when there is something in the ring, or when Run is to end.
func (w *Worker) sleep(events capture.EventHandler) error {
	if err := w.source.look(); err != nil {
		return err
	}
	w.deliverCounted(events)
	woken := false
	err := w.conn.Read(func(uintptr) bool { // called before and after each wait; false: wait
		if woken {
			w.wakeups.Add(1)
		}
		woken = true
		// The program hands a record in and then looks at the word: one of us sees
		// what the other has written.
		w.asleep.Store(1)
		return w.ring.waiting() > 0
	})
	w.asleep.Store(0)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) { // that is interrupt
		return fmt.Errorf("xdp: wait for events: %w", err)
	}
	return nil
}

// finish hands out what was told before now: once, or a flood would keep Run from
// ending.
func (w *Worker) finish(events capture.EventHandler, frames capture.Handler) error {
	for end := w.ring.next + w.ring.waiting(); w.ring.next != end; {
		n, err := w.batch(end, events, frames)
		if err != nil {
			return err
		}
		if n == 0 {
			break // its writer is not ready
		}
	}
	if err := w.source.look(); err != nil {
		return err
	}
	w.deliverCounted(events)
	return nil
}

// interrupt makes Run's wait end, now and for ever.
func (w *Worker) interrupt() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) }

// Stats gives the counters.
func (w *Worker) Stats() Stats {
	return Stats{
		Events: w.events.Load(), Frames: w.frames.Load(), CountedLost: w.lost.Load(),
		Unread: w.unread.Load(), Wakeups: w.wakeups.Load(),
	}
}

// close ends Run, waits for it and gives the ring back.
func (w *Worker) close() error {
	if w.closed.Swap(true) {
		return nil
	}
	w.interrupt()
	w.run.Lock() // for good: nobody may touch the ring from here on
	return errors.Join(w.ring.unmap(), w.file.Close())
}

// programEpoch is the zero of the program's clock, CLOCK_MONOTONIC, in unix
// nanoseconds: it moves when the clock is set.
func programEpoch() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0 // never on Linux
	}
	return time.Now().UnixNano() - t.Nano()
}
