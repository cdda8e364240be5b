package log

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"sync"
)

const (
	maxWaiting = 1 << 20   // bytes that may wait for one output
	writeAt    = 64 << 10  // with so many waiting, nobody waits for a Flush
	yieldAt    = 256 << 10 // with so many, the writer gets its turn first
	keepRoom   = 512 << 10 // room that is kept after a burst
)

// queue holds lines for the one goroutine that writes them, which lives while
// there are any. Nobody who adds a line waits for an output.
type queue struct {
	// deliver writes whole lines to one place. Calls come one at a time.
	deliver func(to int, lines []byte) (lost uint64, err error)
	// gap words the line that stands where lines are missing; nil: there is none.
	gap func(lost uint64) []byte

	mu             sync.Mutex
	waiting, spare lines
	pending        uint64        // lines added and not written yet
	idle           chan struct{} // closed when the goroutine ends; nil: there is none
	added, lost    uint64
	told           uint64 // of lost: said in the place where they are missing
	err            error
}

// lines are whole lines, each with its newline, in runs to the same place.
type lines struct {
	text []byte
	n    uint64
	runs []run
}

type run struct {
	to  int // place
	end int // in text
}

// add puts a line at the end, or counts it as lost.
func (q *queue) add(to int, prefix, line []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.added++
	w := &q.waiting
	if len(w.text)+len(prefix)+len(line)+1 > maxWaiting {
		q.lost++
		return
	}
	w.text = append(append(append(w.text, prefix...), line...), '\n')
	w.n++
	q.pending++
	if last := len(w.runs) - 1; last >= 0 && w.runs[last].to == to {
		w.runs[last].end = len(w.text)
	} else {
		w.runs = append(w.runs, run{to, len(w.text)})
	}
	if len(w.text) < writeAt {
		return
	}
	q.start()
	if len(w.text) >= yieldAt { // all goroutines may share one CPU
		q.mu.Unlock()
		runtime.Gosched()
		q.mu.Lock()
	}
}

func (q *queue) flush() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.start()
}

// start has what waits written. Calls hold q.mu.
func (q *queue) start() {
	if q.idle == nil && q.waiting.n > 0 {
		q.idle = make(chan struct{})
		go q.drain()
	}
}

// drain writes until nothing waits.
func (q *queue) drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.waiting.n > 0 {
		batch, missing := q.waiting, q.lost-q.told
		q.waiting, q.spare = q.spare, lines{}
		q.mu.Unlock()
		lost, err := q.write(&batch)
		if missing > 0 && q.gap != nil {
			// They came when the buffer was full, so behind the last line of it.
			if _, gerr := q.deliver(0, q.gap(missing)); gerr != nil {
				missing = 0
			}
		}
		q.mu.Lock()
		q.told += missing
		q.pending -= batch.n
		q.lost += lost
		if err != nil {
			q.err = err
		}
		batch.reset()
		q.spare = batch
	}
	close(q.idle)
	q.idle = nil
}

// write delivers the runs of b in order.
func (q *queue) write(b *lines) (lost uint64, err error) {
	from := 0
	for _, r := range b.runs {
		n, rerr := q.deliver(r.to, b.text[from:r.end])
		lost += n
		if rerr != nil {
			err = rerr
		}
		from = r.end
	}
	return lost, err
}

// reset empties l and keeps a reasonable room.
func (l *lines) reset() {
	if cap(l.text) > keepRoom {
		l.text = nil
	}
	*l = lines{text: l.text[:0], runs: l.runs[:0]}
}

// wait waits until everything is written, or until ctx ends; it returns how many
// lines are not.
func (q *queue) wait(ctx context.Context) uint64 {
	q.mu.Lock()
	idle := q.idle
	q.mu.Unlock()
	if idle == nil {
		return 0
	}
	select {
	case <-idle:
		return 0
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pending
}

func (q *queue) stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Stats{Lines: q.added, Lost: q.lost, Err: q.err}
}

// Places of the terminal. One goroutine writes to both, so that a reader of both
// sees the lines in their order.
const (
	toStdout = iota
	toStderr
)

// terminal is stdout and stderr.
type terminal [2]stream

func (t *terminal) deliver(to int, lines []byte) (uint64, error) { return t[to].write(lines) }

// stream is one of them.
type stream struct {
	w    io.Writer
	torn bool // the last line that got out has no end
}

// write writes lines and counts those that got lost.
func (s *stream) write(lines []byte) (lost uint64, err error) {
	if s.torn {
		if _, err := io.WriteString(s.w, "\n"); err != nil {
			return uint64(bytes.Count(lines, []byte{'\n'})), err
		}
		s.torn = false
	}
	n, err := s.w.Write(lines)
	if err == nil {
		return 0, nil
	}
	s.torn = n > 0 && lines[n-1] != '\n'
	return uint64(bytes.Count(lines[n:], []byte{'\n'})), err
}
