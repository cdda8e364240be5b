package pcapfile

import (
	"encoding/binary"
	"fmt"
	"time"

	"portsentry/internal/capture"
)

// Magic numbers of pcap by a writer of the same byte order
// (draft-ietf-opsawg-pcap, section 4). The modified format has 8 bytes more in
// front of each packet.
const (
	magicMicro    = 0xa1b2c3d4
	magicNano     = 0xa1b23c4d
	magicModified = 0xa1b2cd34
)

// classic reads pcap.
type classic struct {
	in    *input
	last  int // bytes of the record that next has given
	head  int // bytes of a record's header
	big   bool
	tick  int64 // nanoseconds
	minor uint16
	link  capture.Link
}

func newClassic(in *input) (*classic, error) {
	c := &classic{in: in, head: 16, tick: int64(time.Microsecond)}
	b, err := in.peek(4)
	if err != nil {
		return nil, err
	}
	known := func(magic uint32) bool {
		switch magic {
		case magicNano:
			c.tick = 1
		case magicModified:
			c.head = 24
		case magicMicro:
		default:
			return false
		}
		return true
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if !known(binary.LittleEndian.Uint32(b)) {
		if !known(binary.BigEndian.Uint32(b)) {
			return nil, &FormatError{append([]byte{}, b...)}
		}
		c.big, order = true, binary.BigEndian
	}
	if b, err = in.peek(24); err != nil {
		return nil, err
	}
	if major := order.Uint16(b[4:]); major != 2 {
		return nil, fmt.Errorf("pcap of version %d, and 2 is known here", major)
	}
	c.minor, c.link = order.Uint16(b[6:]), linkOf(uint16(order.Uint32(b[20:])))
	c.last = 24
	return c, nil
}

// next is for reader.
func (c *classic) next(f *capture.Frame) error {
	c.in.pass(c.last)
	c.last = 0
	b, err := c.in.begin(c.head)
	if err != nil {
		return err
	}
	var second, fraction, length, wire uint32
	if c.big {
		second, fraction = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		length, wire = binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	} else {
		second, fraction = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		length, wire = binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	}
	if c.minor < 4 && length > wire {
		length, wire = wire, length // their order changed with version 2.3
	}
	if length > maxRecord {
		return fmt.Errorf("a packet of %d bytes", length)
	}
	size := c.head + int(length)
	if b, err = c.in.take(size); err != nil {
		return err
	}
	c.last = size
	f.Data, f.WireLen, f.Link = b[c.head:], int(max(wire, length)), c.link
	f.Time = int64(second)*int64(time.Second) + int64(fraction)*c.tick
	return nil
}
