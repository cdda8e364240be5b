package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Hit is a packet that the trap rules answered with a provisional ban.
type Hit struct {
	Time    int64  // unix nanoseconds: when the packet came, else when it was announced
	Packet  []byte // from the network header on, at most 256 bytes; valid during the call
	IfIndex int32  // where it came in
	Family  uint8  // 4 or 6
}

// NFLOG's protocol, linux/netfilter/nfnetlink_log.h. Attributes of the kernel
// are in network order.
const (
	nfulnlMsgPacket = 0
	nfulnlMsgConfig = 1

	nfulaCfgCmd     = 1
	nfulaCfgMode    = 2
	nfulaCfgTimeout = 4 // 10 ms units
	nfulaCfgQThresh = 5
	nfulaCfgFlags   = 6

	nfulnlCfgCmdBind = 1
	nfulnlCopyPacket = 2
	nfulnlCfgFSeq    = 1

	nfulaTimestamp = 3 // seconds, microseconds
	nfulaIfIndexIn = 4
	nfulaPayload   = 9
	nfulaSeq       = 12

	nlaTypeMask = 0x3fff // without the nested and byte order bits

	firstGroup, groups = 7, 64 // the group tried first, and how many
	copyRange          = 256   // two header chains fit: IP options or extension headers, and TCP
	hitBuffer          = 1 << 20
)

// hitLog is the socket to which the trap rules announce.
type hitLog struct {
	conn  *netlink.Conn
	group uint16

	announced, lost, overruns atomic.Uint64
	next                      uint32 // number of the message to come; Run's own
}

// openHitLog binds the first group that nobody listens to.
func openHitLog() (*hitLog, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	l := &hitLog{conn: conn}
	if err := l.bind(); err != nil {
		return nil, errors.Join(fmt.Errorf("NFLOG: %w", err), conn.Close())
	}
	return l, nil
}

func (l *hitLog) bind() error {
	if err := l.conn.SetReadBuffer(hitBuffer); err != nil {
		return err
	}
	for l.group = firstGroup; ; l.group++ {
		err := l.configure(nfulaCfgCmd, []byte{nfulnlCfgCmdBind})
		if err == nil {
			break
		}
		// Another program's group is EPERM, or EBUSY if it comes at the same
		// moment. So is a missing privilege, and then no group will do.
		taken := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY)
		if !taken || l.group == firstGroup+groups-1 {
			return err
		}
	}
	// Up to 32 hits a message, which waits 10 ms for them at the most: the kernel
	// has cut the source off already, and a flood wakes us a hundred times a
	// second instead of thousands.
	for _, c := range []struct {
		attr uint16
		data []byte
	}{
		{nfulaCfgMode, append(binary.BigEndian.AppendUint32(nil, copyRange), nfulnlCopyPacket, 0)},
		{nfulaCfgQThresh, binary.BigEndian.AppendUint32(nil, 32)},
		{nfulaCfgTimeout, binary.BigEndian.AppendUint32(nil, 1)},
		{nfulaCfgFlags, binary.BigEndian.AppendUint16(nil, nfulnlCfgFSeq)},
	} {
		if err := l.configure(c.attr, c.data); err != nil {
			return err
		}
	}
	return nil
}

func (l *hitLog) configure(attr uint16, data []byte) error {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: attr, Data: data}})
	if err != nil {
		return err
	}
	header := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, l.group)
	_, err = l.conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_ULOG<<8 | nfulnlMsgConfig,
			Flags: netlink.Request | netlink.Acknowledge,
		},
		Data: append(header, attrs...),
	})
	return err
}

// Run calls fn for each hit and watches over the table (see Lost) until ctx
// ends or the table is closed. It is started once, whether there are trap rules
// yet or not: a Reconfigure that brings the first ones is noticed.
//
// fn is called from one goroutine and without allocating. It decides whether to
// confirm (Ban) or to take back (Revoke); it should hand the work on, because
// hits wait meanwhile in a bounded buffer.
func (t *Table) Run(ctx context.Context, fn func(Hit)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watched error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		watched = t.watch(ctx)
	})
	err := t.hear(ctx, fn)
	cancel()
	wg.Wait()
	return errors.Join(err, watched)
}

// hear waits for the first trap rules and then for their hits.
func (t *Table) hear(ctx context.Context, fn func(Hit)) error {
	select {
	case <-ctx.Done():
		return nil
	case <-t.hearing:
	}
	l := t.log
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("nftables: NFLOG: %w", err)
	}
	if err := l.conn.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("nftables: NFLOG: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		_ = l.conn.SetReadDeadline(time.Unix(1, 0)) // fails only when closed, which ends Run too
	})
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, err := read(raw, buf)
		switch {
		case err == nil:
			l.messages(buf[:n], fn)
		case errors.Is(err, unix.ENOBUFS): // the gap in the numbers says how many
			l.overruns.Add(1)
		case ctx.Err() != nil, t.isClosed():
			return nil
		default:
			return fmt.Errorf("nftables: NFLOG: %w", err)
		}
	}
}

// messages reads one datagram of netlink messages.
func (l *hitLog) messages(b []byte, fn func(Hit)) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return
		}
		if binary.NativeEndian.Uint16(b[4:]) == unix.NFNL_SUBSYS_ULOG<<8|nfulnlMsgPacket {
			if h, seq, ok := parseHit(b[unix.NLMSG_HDRLEN:size]); ok {
				l.announced.Add(1)
				if seq != unnumbered {
					l.lost.Add(uint64(uint32(seq) - l.next))
					l.next = uint32(seq) + 1
				}
				fn(h)
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
}

// unnumbered is the number of a message that came before numbering was on.
const unnumbered = -1

// parseHit reads nfgenmsg and attributes.
func parseHit(b []byte) (h Hit, seq int64, ok bool) {
	seq = unnumbered
	if len(b) < 4 {
		return h, 0, false
	}
	switch b[0] {
	case unix.NFPROTO_IPV4:
		h.Family = 4
	case unix.NFPROTO_IPV6:
		h.Family = 6
	default:
		return h, 0, false
	}
	for b = b[4:]; len(b) >= unix.NLA_HDRLEN; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.NLA_HDRLEN || size > len(b) {
			return h, 0, false
		}
		v := b[unix.NLA_HDRLEN:size]
		switch kind := binary.NativeEndian.Uint16(b[2:]) & nlaTypeMask; {
		case kind == nfulaPayload:
			h.Packet = v
		case kind == nfulaIfIndexIn && len(v) == 4:
			h.IfIndex = int32(binary.BigEndian.Uint32(v))
		case kind == nfulaSeq && len(v) == 4:
			seq = int64(binary.BigEndian.Uint32(v))
		case kind == nfulaTimestamp && len(v) == 16:
			h.Time = int64(binary.BigEndian.Uint64(v))*1e9 + int64(binary.BigEndian.Uint64(v[8:]))*1e3
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	if h.Time == 0 {
		h.Time = time.Now().UnixNano()
	}
	return h, seq, len(h.Packet) > 0
}
