package pcapfile

import (
	"io"
	"sync"
)

// ahead reads a stream ahead, in a goroutine of its own. It is for streams whose
// reading is work: gzip is undone on one core while another one looks at packets.
type ahead struct {
	full  chan chunk
	empty chan []byte
	stop  chan struct{}
	done  sync.WaitGroup

	now chunk // what Read is giving out
	at  int
}

// chunk is what one call of Read gave.
type chunk struct {
	buf []byte
	n   int
	err error
}

// chunks of chunkLen bytes, which is more than compress/flate gives at once, are
// all that is read ahead.
const (
	chunks   = 8
	chunkLen = 64 << 10
)

// readAhead begins to read from, until the end, an error or close.
func readAhead(from io.Reader) *ahead {
	a := &ahead{full: make(chan chunk, chunks), empty: make(chan []byte, chunks), stop: make(chan struct{})}
	for range chunks {
		a.empty <- make([]byte, chunkLen)
	}
	a.done.Go(func() { a.run(from) })
	return a
}

func (a *ahead) run(from io.Reader) {
	for {
		select {
		case <-a.stop:
			return
		case buf := <-a.empty:
			n, err := from.Read(buf)
			a.full <- chunk{buf, n, err} // there is room for all of them
			if err != nil {
				return
			}
		}
	}
}

// Read is for io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	for a.at == a.now.n {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.buf != nil {
			a.empty <- a.now.buf
		}
		a.now, a.at = <-a.full, 0
	}
	n := copy(p, a.now.buf[a.at:a.now.n])
	a.at += n
	return n, nil
}

// close ends the reading. While the stream blocks, so does close.
func (a *ahead) close() {
	close(a.stop)
	a.done.Wait()
}
