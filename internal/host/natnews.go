package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Messages of nf_tables about tables, chains and rules are NFT_MSG_NEWTABLE (0)
// to NFT_MSG_DELRULE and, since Linux 6.3, these. All others, of which those
// about elements of sets are the many, change no rule.
const (
	nftDestroyTable = 26
	nftDestroyRule  = 28
)

func changesRules(kind uint8) bool {
	return kind <= unix.NFT_MSG_DELRULE || kind >= nftDestroyTable && kind <= nftDestroyRule
}

// ruleNews hears of changes of tables, chains and rules of nftables, whoever
// makes them.
type ruleNews struct {
	file *os.File
	buf  []byte
}

// newsSize holds what the kernel puts into one datagram, which is up to a page
// or 8 KiB. One that is cut off counts as news.
const newsSize = 8 << 10

// subscribeRules opens a socket in the namespace of the calling thread. The
// reads of the file have deadlines, as those of subscribe.
func subscribeRules() (*ruleNews, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, fmt.Errorf("the kernel has no nfnetlink: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	err = filterRules(fd)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("netlink subscription: %w", err), unix.Close(fd))
	}
	return &ruleNews{os.NewFile(uintptr(fd), "nfnetlink"), make([]byte, newsSize)}, nil
}

func (r *ruleNews) close() error { return r.file.Close() }

// wake ends a wait that is going on. It fails only where the file is closed,
// which ends it too.
func (r *ruleNews) wake() { _ = r.file.SetReadDeadline(time.Unix(1, 0)) }

// wait returns true on news of other rules than ours, false when it is late or
// ctx has ended. wake has to be called when ctx ends.
func (r *ruleNews) wait(ctx context.Context, late time.Time) (bool, error) {
	if err := r.file.SetReadDeadline(late); err != nil {
		return false, fmt.Errorf("changes of rules: %w", err)
	}
	if ctx.Err() != nil { // after setting it: the other order could sleep through
		return false, nil
	}
	for {
		n, err := r.file.Read(r.buf)
		switch {
		case errors.Is(err, unix.ENOBUFS): // more than the socket holds
			return true, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("changes of rules: %w", err)
		case concernsRules(r.buf[:n]):
			return true, nil
		}
	}
}

// drain takes all news there are and reports whether there were any, of our own
// rules too. What cannot be read counts as news.
func (r *ruleNews) drain() (news bool) {
	raw, err := r.file.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		for {
			_, err := unix.Read(int(fd), r.buf)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return
			case err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR):
				news = true
				return
			}
			news = news || !errors.Is(err, unix.EINTR)
		}
	})
	return news || err != nil
}

// concernsRules reports whether netlink messages tell of tables, chains or rules
// that are not ours.
func concernsRules(b []byte) bool {
	for len(b) > 0 {
		var m message
		if m, b = nextMessage(b); len(m.body) < nfgenSize {
			return true // torn
		}
		// The name of the table is attribute 1 of each of the three.
		if changesRules(uint8(m.kind)) && !ownTable(m.body[0], attribute(m.body[nfgenSize:], unix.NFTA_TABLE_NAME)) {
			return true
		}
	}
	return false
}

// filterRules keeps datagrams away that tell of no table, chain or rule, such as
// those that each ban by nftables causes: they wake nobody and take no room.
func filterRules(fd int) error {
	raw, err := bpf.Assemble(rulesOnly())
	if err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	prog := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		prog[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
}

// filteredMessages is more than fit into a page of 4 KiB; a datagram with more is
// taken as it is. Classic BPF has no loops.
const filteredMessages = 64

// rulesOnly is a filter that walks the messages of a datagram and takes it at
// the first that changesRules. Reading past the end ends a filter with "no".
func rulesOnly() []bpf.Instruction {
	// Classic BPF reads in network order, netlink is in that of the machine.
	kind, low, high := uint32(4), uint32(0), uint32(1)
	if native.Uint16([]byte{0, 1}) == 1 {
		kind, low, high = 5, 3, 2
	}
	take := bpf.RetConstant{Val: 1 << 16}
	prog := []bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegX, Val: 0}}
	for range filteredMessages {
		prog = append(prog,
			bpf.LoadIndirect{Off: kind, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: unix.NFT_MSG_DELRULE, SkipTrue: 1},
			take,
			bpf.JumpIf{Cond: bpf.JumpLessThan, Val: nftDestroyTable, SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: nftDestroyRule, SkipTrue: 1},
			take,
			// X += length of the message, aligned
			bpf.LoadIndirect{Off: high, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 8},
			bpf.ALUOpX{Op: bpf.ALUOpAdd},
			bpf.StoreScratch{Src: bpf.RegA, N: 0},
			bpf.LoadIndirect{Off: low, Size: 1},
			bpf.LoadScratch{Dst: bpf.RegX, N: 0},
			bpf.ALUOpX{Op: bpf.ALUOpAdd},
			bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 3},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(3)},
			bpf.TAX{},
		)
	}
	return append(prog, take)
}
