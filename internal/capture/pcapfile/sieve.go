package pcapfile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxBetween is how many bytes of a pcapng file one packet may cost, with the
// interfaces described in front of it. It bounds what a lying length can make
// the reader collect.
const maxBetween = 1 << 20

// Block types of pcapng that lead to packets.
const (
	blockSection   = magicNg // the same in both byte orders
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
)

// sieve passes the blocks of a pcapng stream that lead to packets and leaves
// out the others: names, secrets and statistics, which the reader behind it
// would collect for as long as the file goes on. The reader gets io.EOF for
// whatever ends the stream; err and cut say what it was.
type sieve struct {
	in     *bufio.Reader
	budget int // bytes that may pass; see maxBetween
	order  binary.ByteOrder
	head   [12]byte
	ahead  []byte // part of head that has not passed yet
	left   uint32 // bytes of the current block that have not passed, behind ahead
	cut    bool   // the stream ended inside of a block
	err    error  // the stream did not just end
}

func (s *sieve) Read(p []byte) (int, error) {
	if s.err != nil || s.cut {
		return 0, io.EOF
	}
	for len(s.ahead) == 0 && s.left == 0 {
		if err := s.nextBlock(); err != nil {
			return 0, s.ended(err)
		}
	}
	if s.budget <= 0 {
		s.err = fmt.Errorf("more than %d bytes without a packet", maxBetween)
		return 0, io.EOF
	}
	n := min(len(p), s.budget)
	var err error
	if len(s.ahead) > 0 {
		n = copy(p[:n], s.ahead)
		s.ahead = s.ahead[n:]
	} else {
		n, err = s.in.Read(p[:min(uint32(n), s.left)])
		s.left -= uint32(n)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	}
	s.budget -= n
	if err != nil {
		return n, s.ended(err)
	}
	return n, nil
}

// ended notes why the stream ended.
func (s *sieve) ended(err error) error {
	switch {
	case err == io.EOF:
	case errors.Is(err, io.ErrUnexpectedEOF):
		s.cut = true
	default:
		s.err = err
	}
	return io.EOF
}

// nextBlock goes to the next block that may pass. Blocks are a type, their
// length, a body, and the length again.
func (s *sieve) nextBlock() error {
	for {
		head := s.head[:8]
		if _, err := io.ReadFull(s.in, head); err != nil {
			return err
		}
		section := binary.BigEndian.Uint32(head) == blockSection
		if section {
			head = s.head[:12]
			if _, err := io.ReadFull(s.in, head[8:]); err != nil {
				return io.ErrUnexpectedEOF
			}
			s.order = binary.ByteOrder(binary.LittleEndian)
			if binary.BigEndian.Uint32(head[8:]) == 0x1a2b3c4d {
				s.order = binary.BigEndian
			}
		}
		length := s.order.Uint32(head[4:])
		if length%4 != 0 || length < uint32(len(head))+4 {
			return fmt.Errorf("a block of %d bytes", length)
		}
		length -= uint32(len(head))
		switch kind := s.order.Uint32(head); {
		case section, kind == blockInterface, kind == blockPacket, kind == blockSimple, kind == blockEnhanced:
			s.ahead, s.left = head, length
			return nil
		}
		if _, err := s.in.Discard(int(length)); err != nil {
			if err == io.EOF {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
}
