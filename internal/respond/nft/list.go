package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// maxListed bounds what is read of one set. For each part of an answer the
// kernel walks the set from its start, so the cost grows with the square.
const maxListed = 100_000

// ErrTooMany says that a set holds more than was read. What was not read is in
// force all the same and ends by itself.
var ErrTooMany = errors.New("more bans in the kernel than are listed")

// Existing gives the confirmed bans that the kernel holds, with Prefix, Scope,
// Strength and Until. They may come from an earlier run. With ErrTooMany the
// answer is a part. A ban that changes meanwhile may be in it twice or not.
// Like Open it works in the network namespace of the calling thread.
func (t *Table) Existing(ctx context.Context) ([]respond.Ban, error) {
	unlock, err := t.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var bans []respond.Ban
	var partial error
	for _, f := range t.lay.families() {
		for _, s := range f.bans() {
			err := dump(s.Name, maxListed, func(e element) {
				if b, ok := f.ban(s, e); ok {
					bans = append(bans, b)
				}
			})
			if errors.Is(err, ErrTooMany) {
				partial = err
			} else if err != nil {
				return bans, fmt.Errorf("nftables: listing set %s: %w", s.Name, err)
			}
			if err := ctx.Err(); err != nil {
				return bans, err
			}
		}
	}
	return append(bans, t.ranges.bans(time.Now())...), partial
}

// element of a set. Its key is the element's own copy.
type element struct {
	key     []byte
	left    time.Duration
	ends    bool
	comment string
}

// timeout is what to give the kernel so that the ban lasts as long as it would
// have: zero lasts until undone.
func (e element) timeout() time.Duration {
	if e.ends {
		return max(e.left, time.Millisecond)
	}
	return 0
}

func (e element) until() time.Time {
	if e.ends {
		return time.Now().Add(e.left)
	}
	return time.Time{}
}

// dump reads a set of our table, and no further once it has seen most elements,
// over a socket of its own: one that was left in the middle of an answer is of
// no further use. The library's reader takes 4 KiB at a time and has no bound.
func dump(set string, most int, fn func(element)) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(tableName + "\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set + "\x00")},
	})
	if err != nil {
		return err
	}
	_, err = conn.Send(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM,
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10) // the kernel fills at most 32 KiB at a time
	for n := 0; ; {
		size, err := read(raw, buf)
		if err != nil {
			return err
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:size])
		if err != nil {
			return err
		}
		for _, m := range msgs {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				if len(m.Data) < 4 {
					return unix.EBADMSG
				}
				return syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
			}
			if len(m.Data) < 4 {
				return unix.EBADMSG
			}
			got, err := elements(m.Data[4:], fn)
			if err != nil {
				return err
			}
			if n += got; n >= most {
				return fmt.Errorf("set %s: %w", set, ErrTooMany)
			}
		}
	}
}

// read waits for one datagram. It ends with the connection's read deadline.
func read(c syscall.RawConn, buf []byte) (n int, err error) {
	werr := c.Read(func(fd uintptr) bool {
		for {
			n, err = unix.Read(int(fd), buf)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if werr != nil {
		return 0, werr
	}
	return n, err
}

// write sends one datagram: netlink never has to wait for that.
func write(c syscall.RawConn, b []byte) error {
	var err error
	werr := c.Write(func(fd uintptr) bool {
		for {
			if _, err = unix.Write(int(fd), b); err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	return errors.Join(werr, err)
}

// elements reads the attributes of one NFT_MSG_NEWSETELEM.
func elements(b []byte, fn func(element)) (n int, err error) {
	ad, err := decoder(b)
	if err != nil {
		return 0, err
	}
	for ad.Next() {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		ad.Nested(func(list *netlink.AttributeDecoder) error {
			for list.Next() {
				var e element
				list.Nested(e.decode)
				if len(e.key) > 0 {
					fn(e)
					n++
				}
			}
			return nil
		})
	}
	return n, ad.Err()
}

func (e *element) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			ad.Nested(func(key *netlink.AttributeDecoder) error {
				for key.Next() {
					e.key = key.Bytes() // a copy
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_EXPIRATION: // milliseconds
			e.left, e.ends = time.Duration(ad.Uint64())*time.Millisecond, true
		case unix.NFTA_SET_ELEM_USERDATA:
			e.comment, _ = userdata.GetString(ad.Bytes(), userdata.NFTNL_UDATA_SET_ELEM_COMMENT)
		}
	}
	return nil
}

func decoder(b []byte) (*netlink.AttributeDecoder, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err == nil {
		ad.ByteOrder = binary.BigEndian
	}
	return ad, err
}

// Has gives the strongest ban that stops addr now, be it confirmed or
// provisional, its own or its /64's.
func (t *Table) Has(ctx context.Context, addr netip.Addr) (respond.Ban, bool, error) {
	unlock, err := t.begin(ctx)
	if err != nil {
		return respond.Ban{}, false, err
	}
	defer unlock()
	var best respond.Ban
	for _, p := range t.places(addr.Unmap()) {
		e, ok, err := t.get(p)
		if err != nil {
			return respond.Ban{}, false, err
		}
		if !ok {
			continue
		}
		if b, ok := p.family.ban(p.set, e); ok && b.Strength > best.Strength {
			best = b
		}
	}
	return best, best.Strength != judge.Nothing, nil
}
