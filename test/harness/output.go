package harness

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"os"
)

// ScanPrefix begins the line of one probe.
const ScanPrefix = "Scan from: ["

// Output is a file that a daemon writes lines to.
type Output string

// Lines are the lines written so far, without one that is still being written.
func (o Output) Lines() ([]string, error) {
	var all []string
	err := o.each(func(line []byte) { all = append(all, string(line)) })
	return all, err
}

// Scans is how many probes the output itemises so far. It holds one line in
// memory at a time.
func (o Output) Scans() (int, error) {
	n := 0
	err := o.each(func(line []byte) {
		if bytes.HasPrefix(line, []byte(ScanPrefix)) {
			n++
		}
	})
	return n, err
}

func (o Output) each(f func(line []byte)) error {
	r, err := o.open()
	if err != nil {
		return err
	}
	defer r.Close()
	for line, err := range r.lines() {
		if err != nil {
			return err
		}
		f(line)
	}
	return nil
}

// tail reads a file that grows.
type tail struct {
	*os.File
	buf  *bufio.Reader
	part []byte // of a line that is still being written
}

func (o Output) open() (*tail, error) {
	f, err := os.Open(string(o))
	if err != nil {
		return nil, err
	}
	return &tail{File: f, buf: bufio.NewReaderSize(f, 1<<16)}, nil
}

// lines gives the whole lines up to the present end of the file. The next call
// goes on from there. A line is valid until the next one.
func (t *tail) lines() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			b, err := t.buf.ReadSlice('\n')
			t.part = append(t.part, b...)
			switch {
			case err == nil:
				line := t.part[:len(t.part)-1]
				t.part = t.part[:0]
				if !yield(line, nil) {
					return
				}
			case errors.Is(err, bufio.ErrBufferFull):
			case errors.Is(err, io.EOF):
				return
			default:
				yield(nil, err)
				return
			}
		}
	}
}
