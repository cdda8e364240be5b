package pcapfile

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"time"

	"portsentry/internal/capture"
)

// Block types of pcapng that lead to packets (draft-ietf-opsawg-pcapng, section
// 4). All others, names, secrets and statistics, are passed over unread.
const (
	blockSection   = magicNg // the same in both byte orders
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
)

// Options of an interface description.
const (
	optionEnd        = 0
	optionResolution = 9
	optionOffset     = 14
)

// ng reads pcapng.
type ng struct {
	in         *input
	order      binary.ByteOrder
	big        bool
	last       int // bytes of the block that next has given
	interfaces []ngLink
}

// ngLink is an interface of the current section.
type ngLink struct {
	link   capture.Link
	snap   uint32 // 0: no limit
	units  uint64 // of a time stamp, in a second
	offset int64  // nanoseconds to add
}

func newNg(in *input) (*ng, error) {
	n := &ng{in: in}
	kind, length, err := n.head()
	if err == nil {
		_, err = n.block(kind, length, nil)
	}
	return n, err
}

// next is for reader.
func (n *ng) next(f *capture.Frame) error {
	for {
		n.in.pass(n.last)
		n.last = 0
		kind, length, err := n.head()
		if err != nil {
			return err
		}
		if found, err := n.block(kind, length, f); found || err != nil {
			return err
		}
	}
}

// head reads what all blocks begin with: their type and length.
func (n *ng) head() (kind, length uint32, err error) {
	b, err := n.in.begin(8)
	if err != nil {
		return 0, 0, err
	}
	if binary.BigEndian.Uint32(b) == blockSection {
		if b, err = n.in.take(12); err != nil {
			return 0, 0, err
		}
		switch {
		case binary.LittleEndian.Uint32(b[8:]) == 0x1a2b3c4d:
			n.order, n.big = binary.LittleEndian, false
		case binary.BigEndian.Uint32(b[8:]) == 0x1a2b3c4d:
			n.order, n.big = binary.BigEndian, true
		default:
			return 0, 0, fmt.Errorf("a section in the byte order %x", b[8:])
		}
	}
	kind, length = n.u32(b), n.u32(b[4:])
	if length%4 != 0 || length < 12 {
		err = fmt.Errorf("a block of %d bytes", length)
	}
	return kind, length, err
}

// u32 reads a number in the byte order of the section.
func (n *ng) u32(b []byte) uint32 {
	if n.big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

// block reads the block that begins here. If it is a packet it fills f and
// reports true, and the block stays in the buffer; else it is behind us.
func (n *ng) block(kind, length uint32, f *capture.Frame) (found bool, err error) {
	fixed := uint32(0) // bytes of the body that there must be
	switch kind {
	case blockSection:
		fixed = 16
	case blockInterface:
		fixed = 8
	case blockPacket, blockEnhanced:
		fixed = 20
	case blockSimple:
		fixed = 4
	default:
		return false, n.in.skip(int(length))
	}
	switch {
	case length < 12+fixed:
		return false, fmt.Errorf("a block of type %d and %d bytes", kind, length)
	case length > bufferLen && kind != blockSection:
		return false, fmt.Errorf("a packet of %d bytes or its interface", length)
	case length > bufferLen: // with a comment
		if _, err := n.in.take(16); err != nil {
			return false, err
		}
		n.interfaces = n.interfaces[:0]
		return false, n.in.skip(int(length))
	}
	b, err := n.in.take(int(length))
	if err != nil {
		return false, err
	}
	if end := n.u32(b[length-4:]); end != length {
		return false, fmt.Errorf("a block of %d bytes that says %d at its end", length, end)
	}
	body := b[8 : length-4]
	switch kind {
	case blockSection:
		n.interfaces = n.interfaces[:0]
		if major := n.order.Uint16(body[4:]); major != 1 {
			err = fmt.Errorf("pcapng of version %d, and 1 is known here", major)
		}
	case blockInterface:
		err = n.describe(body)
	default:
		if err = n.packet(kind, body, f); err == nil {
			n.last = int(length)
			return true, nil
		}
	}
	if err != nil {
		return false, err
	}
	return false, n.in.skip(int(length))
}

// packet reads the body of a block with a packet.
func (n *ng) packet(kind uint32, body []byte, f *capture.Frame) error {
	var id, length, wire uint32
	data := body[4:]
	switch kind {
	case blockSimple:
		wire, length = n.u32(body), uint32(len(data))
		length = min(length, wire)
	default:
		if id = n.u32(body); kind == blockPacket {
			id = uint32(n.order.Uint16(body)) // a count of losses follows
		}
		length, wire, data = n.u32(body[12:]), n.u32(body[16:]), body[20:]
	}
	if id >= uint32(len(n.interfaces)) {
		return fmt.Errorf("a packet of interface %d, and %d are described", id, len(n.interfaces))
	}
	from := &n.interfaces[id]
	if kind == blockSimple && from.snap > 0 {
		length = min(length, from.snap)
	}
	if length > maxRecord || length > uint32(len(data)) {
		return fmt.Errorf("a packet of %d bytes", length)
	}
	f.Data, f.WireLen, f.Link, f.Time = data[:length], int(max(wire, length)), from.link, 0
	if kind != blockSimple {
		f.Time = from.time(uint64(n.u32(body[4:]))<<32 | uint64(n.u32(body[8:])))
	}
	return nil
}

// time is a time stamp of the interface in unix nanoseconds.
func (l *ngLink) time(stamp uint64) int64 {
	const second = uint64(time.Second)
	switch l.units {
	case 1e6:
		return int64(stamp*1000) + l.offset
	case second:
		return int64(stamp) + l.offset
	}
	high, low := bits.Mul64(stamp, second)
	if high >= l.units { // beyond 2554
		return math.MaxInt64
	}
	nanos, _ := bits.Div64(high, low, l.units)
	return int64(min(nanos, math.MaxInt64)) + l.offset
}

// describe takes in an interface.
func (n *ng) describe(body []byte) error {
	if len(n.interfaces) == maxInterfaces {
		return fmt.Errorf("more than %d interfaces", maxInterfaces)
	}
	l := ngLink{link: linkOf(n.order.Uint16(body)), snap: n.u32(body[4:]), units: 1e6}
	for options := body[8:]; len(options) >= 4; {
		code, length := n.order.Uint16(options), int(n.order.Uint16(options[2:]))
		value := options[4:]
		if code == optionEnd || length > len(value) {
			break
		}
		switch {
		case code == optionResolution && length == 1:
			l.units = units(value[0])
		case code == optionOffset && length == 8:
			l.offset = int64(n.order.Uint64(value)) * int64(time.Second)
		}
		options = value[min((length+3)&^3, len(value)):]
	}
	n.interfaces = append(n.interfaces, l)
	return nil
}

// units is if_tsresol: a negative power of 2 if its highest bit is set, of 10
// otherwise. What no 64 bits hold is read as the default, microseconds.
func units(resolution byte) uint64 {
	exponent := int(resolution & 0x7f)
	switch {
	case resolution&0x80 != 0 && exponent < 64:
		return 1 << exponent
	case resolution&0x80 == 0 && exponent < 20:
		n := uint64(1)
		for range exponent {
			n *= 10
		}
		return n
	}
	return 1e6
}
