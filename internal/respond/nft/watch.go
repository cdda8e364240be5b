package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// lookEvery bounds how often the table is looked at while others change theirs
// all the time.
const lookEvery = 100 * time.Millisecond

// A loss is told at once. The next is told tellAgain after it at the earliest,
// and each that follows twice as late, up to tellSeldom: somebody who takes the
// table away whenever it comes back does not keep us busy. Once it has stood for
// tellForgive pauses this is over.
const (
	tellAgain   = time.Second
	tellSeldom  = time.Minute
	tellForgive = 4
)

// telling is when losses were told.
type telling struct {
	last  time.Time
	pause time.Duration // after it
}

// told notes that a loss is told now, and gives the pause to make.
func (l *telling) told(now time.Time) time.Duration {
	if now.Sub(l.last) > tellForgive*l.pause {
		l.pause = tellAgain
	} else {
		l.pause = min(2*l.pause, tellSeldom)
	}
	l.last = now
	return l.pause
}

// Lost has a signal when somebody took the table, or rules of it, away, as
// `nft flush ruleset` does. Rebuild is the answer; while there is none the
// signal comes again, less and less often. It takes Run to notice.
func (t *Table) Lost() <-chan struct{} { return t.lost }

// Touched has a signal when another program has changed the ruleset: Holds tells
// whether it took bans out. It takes Run to notice.
func (t *Table) Touched() <-chan struct{} { return t.touched }

// watch tells losses until ctx ends or the table is closed.
func (t *Table) watch(ctx context.Context) error {
	raw, err := t.news.heard.SyscallConn()
	if err == nil {
		err = t.news.heard.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return t.unlessClosed(fmt.Errorf("nftables: changes of the ruleset: %w", err))
	}
	stop := context.AfterFunc(ctx, func() {
		_ = t.news.heard.SetReadDeadline(time.Unix(1, 0)) // fails only when closed, which ends watch too
	})
	defer stop()
	var losses telling
	ours, err := commName()
	if err != nil {
		return fmt.Errorf("nftables: our own name: %w", err)
	}
	for {
		lost, rest := t.isLost(), lookEvery
		if lost {
			select {
			case t.lost <- struct{}{}:
			default: // the last one has not been heard yet
			}
			rest = losses.told(time.Now())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
		if lost {
			continue // look again whether there is news or not
		}
		others, err := drain(raw, ours)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return t.unlessClosed(fmt.Errorf("nftables: changes of the ruleset: %w", err))
		}
		if others {
			select {
			case t.touched <- struct{}{}:
			default:
			}
		}
	}
}

// unlessClosed is err, or nil where the table was closed.
func (t *Table) unlessClosed(err error) error {
	if t.isClosed() {
		return nil
	}
	return err
}

// isLost reports whether the table is not as we left it.
func (t *Table) isLost() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.closed && t.lostNow()
}

// lostNow is isLost for those who hold t.mu.
func (t *Table) lostNow() bool {
	now := t.news.look()
	return t.bare || now.table == 0 || now.table != t.ours.table || now.pre < t.ours.pre || now.trap < t.ours.trap || now.sent < t.ours.sent
}

// news is how we hear of changes of the ruleset and look at what they changed.
type news struct {
	heard *netlink.Conn // hears of each transaction, whoever's it is
	ask   *netlink.Conn
	asked uint32 // numbers of questions, those of lookUp
}

// shape tells the table that we made from another of the same name.
type shape struct {
	table           uint64 // its handle, which no later table gets; 0: there is none
	pre, trap, sent uint32 // rules in the base chains
}

func openNews() (*news, error) {
	heard, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	n := &news{heard: heard}
	if n.ask, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
		return nil, errors.Join(err, heard.Close())
	}
	// A transaction is told element by element, and then as a whole by
	// NFT_MSG_NEWGEN, which is enough for us.
	prog, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2}, // nlmsg_type, in the byte order of the machine
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(asLoaded(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN)), SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err == nil {
		err = heard.SetBPF(prog)
	}
	if err == nil {
		err = heard.JoinGroup(unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("changes of the ruleset: %w", err), n.close())
	}
	return n, nil
}

// asLoaded is a number of the machine as classic BPF, which takes all to be in
// network order, loads it.
func asLoaded(v uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v))
}

func (n *news) close() error { return errors.Join(n.heard.Close(), n.ask.Close()) }

// drain waits for news and takes all there is. others: some of it is of a program with
// another name than ours.
func drain(raw syscall.RawConn, ours string) (others bool, err error) {
	var buf [512]byte
	heard := false
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, err := unix.Read(int(fd), buf[:])
			switch err {
			case nil:
				heard, others = true, others || changedBy(buf[:n]) != ours
			case unix.ENOBUFS: // some were lost: news all the same
				heard, others = true, true
			case unix.EINTR:
			case unix.EAGAIN:
				return heard
			default:
				rerr = err
				return true
			}
		}
	})
	return others, errors.Join(err, rerr)
}

// changedBy is the name of the thread that made a transaction: NFTA_GEN_PROC_NAME of
// its NFT_MSG_NEWGEN.
func changedBy(b []byte) (name string) {
	if len(b) < unix.NLMSG_HDRLEN+4 {
		return ""
	}
	ad, err := decoder(b[unix.NLMSG_HDRLEN+4:])
	if err != nil {
		return ""
	}
	for ad.Next() {
		if ad.Type() == nftaGenProcName {
			name = ad.String()
		}
	}
	return name
}

// commName is the name that the kernel has for our threads.
func commName() (string, error) {
	b := make([]byte, 16) // TASK_COMM_LEN
	if err := unix.Prctl(unix.PR_GET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(b), nil
}

// look looks at the table. What cannot be seen counts as missing.
func (n *news) look() shape {
	var p shape
	n.get(unix.NFT_MSG_GETTABLE, []netlink.Attribute{text(unix.NFTA_TABLE_NAME, tableName)}, func(ad *netlink.AttributeDecoder) {
		if ad.Type() == nftaTableHandle {
			p.table = ad.Uint64()
		}
	})
	for name, rules := range map[string]*uint32{"pre": &p.pre, "trap": &p.trap, "sent": &p.sent} {
		n.get(unix.NFT_MSG_GETCHAIN, []netlink.Attribute{text(unix.NFTA_CHAIN_TABLE, tableName), text(unix.NFTA_CHAIN_NAME, name)},
			func(ad *netlink.AttributeDecoder) {
				if ad.Type() == unix.NFTA_CHAIN_USE { // nothing jumps to a base chain: these are rules
					*rules = ad.Uint32()
				}
			})
	}
	return p
}

// Of linux/netfilter/nf_tables.h: NFTA_TABLE_HANDLE and NFTA_GEN_PROC_NAME.
const (
	nftaTableHandle = 4
	nftaGenProcName = 3
)

func text(kind uint16, value string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: []byte(value + "\x00")}
}

// get asks for one thing and hands its attributes to fn.
func (n *news) get(what uint16, key []netlink.Attribute, fn func(*netlink.AttributeDecoder)) {
	attrs, err := netlink.MarshalAttributes(key)
	if err != nil {
		return
	}
	msgs, err := n.ask.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | what), Flags: netlink.Request},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return
	}
	for _, m := range msgs {
		if len(m.Data) < 4 {
			continue
		}
		ad, err := decoder(m.Data[4:])
		if err != nil {
			continue
		}
		for ad.Next() {
			fn(ad)
		}
	}
}
