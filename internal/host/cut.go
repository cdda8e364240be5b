package host

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE
	ctID     = 12
	ctZone   = 18

	// cutAtOnce bounds what is remembered of one list, 100 bytes each; cutRounds how
	// often it is asked for again where there is more.
	cutAtOnce = 4096
	cutRounds = 64
)

// Cutter takes entries out of connection tracking, in every zone. It is for one
// goroutine, and takes CAP_NET_ADMIN.
type Cutter struct {
	conn *conn
	out  []byte // requests to take out, one after the other
	ends []int  // where each of them ends
}

// NewCutter opens the way to the kernel. Its error wraps ErrNoConntrack where there
// is nobody to ask.
func NewCutter() (*Cutter, error) {
	t, err := NewConntrack() // which asks once
	if err != nil {
		return nil, err
	}
	return &Cutter{conn: t.conn}, nil
}

// Close frees the socket.
func (c *Cutter) Close() error { return c.conn.close() }

// Cut takes out the entries of both families, or of the one that is asked for, in
// which one of the ends, of either direction, is banned. The kernel lists them all
// for that; nothing of the list is kept but what is to go. It returns how many went.
func (c *Cutter) Cut(family uint8, banned func(netip.Addr) bool) (int, error) {
	cut := 0
	for range cutRounds {
		full, err := c.look(family, banned)
		if err != nil && !errors.Is(err, errInterrupted) {
			return cut, fmt.Errorf("list of tracked connections: %w", err)
		}
		n, failed := c.takeOut()
		if cut += n; failed != nil {
			return cut, fmt.Errorf("take out a tracked connection: %w", failed)
		}
		if !full && err == nil {
			return cut, nil
		}
	}
	return cut, errors.New("more tracked connections of banned sources than are taken out at once")
}

// look finds entries to take out. full: there may be more.
func (c *Cutter) look(family uint8, banned func(netip.Addr) bool) (full bool, err error) {
	c.out, c.ends = c.out[:0], c.ends[:0]
	req := newRequest(ctGet, unix.NLM_F_DUMP, nfgenSize)
	req[unix.SizeofNlMsghdr] = family
	err = c.conn.dump(req, func(_ uint16, body []byte) {
		f, ok := parseFlow(body)
		if !ok || !(banned(f.OrigSrc.Addr()) || banned(f.OrigDst.Addr()) || banned(f.ReplySrc.Addr()) || banned(f.ReplyDst.Addr())) {
			return
		}
		if full = len(c.ends) >= cutAtOnce; !full {
			c.out = appendDelete(c.out, body)
			c.ends = append(c.ends, len(c.out))
		}
	})
	return full, err
}

// takeOut sends what look has found. What has ended by itself is passed over.
func (c *Cutter) takeOut() (cut int, err error) {
	begin := 0
	for _, end := range c.ends {
		_, err := c.conn.exact(c.out[begin:end])
		begin = end
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil && !errors.Is(err, unix.Errno(0)): // 0 is how it says yes
			return cut, err
		default:
			cut++
		}
	}
	return cut, nil
}

// appendDelete writes IPCTNL_MSG_CT_DELETE for the entry that body lists, and for no
// other that may be in its place by then.
func appendDelete(b, body []byte) []byte {
	begin := len(b)
	b = append(b, newRequest(ctDelete, unix.NLM_F_ACK, nfgenSize)...)
	b[begin+unix.SizeofNlMsghdr] = body[0] // the family
	for k, v, rest, ok := nextAttribute(body[nfgenSize:]); ok; k, v, rest, ok = nextAttribute(rest) {
		kind := k
		switch k {
		case ctTupleOrig:
			kind |= unix.NLA_F_NESTED
		case ctID, ctZone:
		default:
			continue
		}
		b = append(appendAttribute(b, kind, 4+len(v)), v...)
		b = append(b, make([]byte, align4(len(v))-len(v))...)
	}
	native.PutUint32(b[begin:], uint32(len(b)-begin))
	return b
}
