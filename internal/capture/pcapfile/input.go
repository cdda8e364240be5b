package pcapfile

import "io"

// readLen is how much is read at a time: what has been read is still in the cache
// of the core when its packets are looked at.
const readLen = 64 << 10

// input is a stream of records, a part of which lies in memory.
type input struct {
	from     io.Reader
	buf      []byte
	at, have int   // of buf: the next byte, and behind the last one
	err      error // of from, which is told behind the bytes that came before
}

func newInput(from io.Reader) *input { return &input{from: from, buf: make([]byte, bufferLen)} }

// peek gives the next n bytes, bufferLen at most, and leaves them there. They are
// good until the next call. If there are fewer, the error says why, with those.
func (in *input) peek(n int) ([]byte, error) {
	if n > in.have-in.at {
		return in.fill(n)
	}
	return in.buf[in.at : in.at+n], nil
}

// fill is peek for what is not there yet.
func (in *input) fill(n int) ([]byte, error) {
	in.have = copy(in.buf, in.buf[in.at:in.have])
	in.at = 0
	for in.have < n && in.err == nil {
		in.read(in.buf[:max(n, readLen)])
	}
	if in.have < n {
		return in.buf[:in.have], in.err
	}
	return in.buf[:n], nil
}

// read reads once into to, behind what is there. A reader that gives neither bytes
// nor an error may do so for a while.
func (in *input) read(to []byte) {
	for range 100 {
		n, err := in.from.Read(to[in.have:])
		in.have, in.err = in.have+n, err
		if n > 0 || err != nil {
			return
		}
	}
	in.err = io.ErrNoProgress
}

// pass leaves out n bytes that peek has given.
func (in *input) pass(n int) { in.at += n }

// skip leaves n bytes out, which are inside of a record.
func (in *input) skip(n int) error {
	for n > in.have-in.at {
		n -= in.have - in.at
		in.at = in.have
		if b, err := in.fill(1); len(b) == 0 {
			return inside(err)
		}
	}
	in.at += n
	return nil
}

// take peeks at the next n bytes, which are inside of a record.
func (in *input) take(n int) ([]byte, error) {
	b, err := in.peek(n)
	if err != nil {
		err = inside(err)
	}
	return b, err
}

// begin peeks at the head of a record of n bytes: io.EOF is the end behind a
// whole one.
func (in *input) begin(n int) ([]byte, error) {
	b, err := in.peek(n)
	if err != nil && len(b) > 0 {
		err = inside(err)
	}
	return b, err
}

// inside makes of the end of a stream the end inside of a record.
func inside(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
