package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// ErrLost means that the table is not as we left it: see Lost.
var ErrLost = errors.New("nftables: our table is not as we left it")

// Holds is for respond.Checker: each ban is looked up in the set it belongs in. Where
// the table itself is gone the error is ErrLost.
func (t *Table) Holds(ctx context.Context, bans []respond.Ban) (missing []int, err error) {
	unlock, err := t.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var places []place
	var of []int // the ban of each
	for i := range bans {
		if isRange(bans[i].Prefix) {
			places = append(places, t.pieces(&bans[i])...)
		} else {
			f, addr, err := t.of(bans[i].Prefix)
			if err != nil {
				return nil, err
			}
			home, err := f.home(&bans[i], addr)
			if err != nil {
				return nil, err
			}
			places = append(places, home)
		}
		for len(of) < len(places) {
			of = append(of, i)
		}
	}
	err = t.news.lookUp(places, func(at int) {
		if i := of[at]; len(missing) == 0 || missing[len(missing)-1] != i {
			missing = append(missing, i)
		}
	})
	if err == nil && len(missing) > 0 && t.lostNow() {
		err = ErrLost
	}
	if err != nil {
		return nil, err
	}
	return missing, nil
}

// pieces are the first addresses of the segments that b, a ban of a range, comes to in
// its set, or its own, where wider ones hold all of it.
func (t *Table) pieces(b *respond.Ban) []place {
	f, p := t.familyOf(b.Prefix.Addr()), b.Prefix.Masked()
	set := f.softnet
	if b.Strength == judge.Full {
		set = f.fullnet
	}
	var out []place
	for _, s := range t.nets[set] {
		if s.of == p {
			out = append(out, place{f, set, s.From().AsSlice()})
		}
	}
	if len(out) == 0 {
		out = []place{{f, set, p.Addr().AsSlice()}}
	}
	return out
}

// atOnce is how many elements are asked for with one system call. Their answers have
// room in the buffer of any socket.
const atOnce = 64

// lookUp asks for the element of each place and calls missing for those that are not
// there, in their order. Requests go out together: each costs the kernel a microsecond,
// and a call of its own would cost more than that.
func (n *news) lookUp(places []place, missing func(at int)) error {
	raw, err := n.ask.SyscallConn()
	if err != nil {
		return err
	}
	var request, answer []byte
	for from := 0; from < len(places); from += atOnce {
		some := places[from:min(from+atOnce, len(places))]
		request = request[:0]
		first := n.asked
		for _, p := range some {
			request = appendGet(request, n.asked, p.set.Name, p.key)
			n.asked++
		}
		if answer == nil {
			answer = make([]byte, 8<<10)
		}
		if err := write(raw, request); err != nil {
			return fmt.Errorf("nftables: asking for elements: %w", err)
		}
		for i := range some {
			size, err := 0, error(unix.EBADMSG)
			for errors.Is(err, unix.EBADMSG) { // an error may have left answers unread
				if size, err = read(raw, answer); err == nil {
					err = found(answer[:size], first+uint32(i))
				}
			}
			switch {
			case err == nil:
			case errors.Is(err, unix.ENOENT):
				missing(from + i)
			default:
				return fmt.Errorf("nftables: looking into set %s: %w", some[i].set.Name, err)
			}
		}
	}
	return nil
}

// appendGet appends the request for one element (NFT_MSG_GETSETELEM), number seq.
func appendGet(b []byte, seq uint32, set string, key []byte) []byte {
	begin := len(b)
	b = append(b, make([]byte, unix.NLMSG_HDRLEN)...)
	b = append(b, unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0)
	b = appendAttr(b, unix.NFTA_SET_ELEM_LIST_TABLE, func(b []byte) []byte { return append(append(b, tableName...), 0) })
	b = appendAttr(b, unix.NFTA_SET_ELEM_LIST_SET, func(b []byte) []byte { return append(append(b, set...), 0) })
	b = appendAttr(b, unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(b []byte) []byte {
		return appendAttr(b, unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, func(b []byte) []byte {
			return appendAttr(b, unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_KEY, func(b []byte) []byte {
				return appendAttr(b, unix.NFTA_DATA_VALUE, func(b []byte) []byte { return append(b, key...) })
			})
		})
	})
	header := b[begin:]
	binary.NativeEndian.PutUint32(header, uint32(len(header)))
	binary.NativeEndian.PutUint16(header[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM)
	binary.NativeEndian.PutUint16(header[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(header[8:], seq)
	return b
}

// appendAttr appends a netlink attribute with what fill appends.
func appendAttr(b []byte, kind uint16, fill func([]byte) []byte) []byte {
	begin := len(b)
	b = fill(append(b, 0, 0, 0, 0))
	binary.NativeEndian.PutUint16(b[begin:], uint16(len(b)-begin))
	binary.NativeEndian.PutUint16(b[begin+2:], kind)
	for len(b)%4 != 0 { // messages begin at a multiple of four
		b = append(b, 0)
	}
	return b
}

// found reads the answer to request number seq: nil where the element is there.
func found(b []byte, seq uint32) error {
	if len(b) < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint32(b[8:]) != seq {
		return unix.EBADMSG
	}
	if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
		if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:]))); errno != 0 {
			return errno
		}
	}
	return nil
}
