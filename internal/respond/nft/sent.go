package nft

import (
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portsentry/internal/host"
)

// What this host has sent: where nothing is tracked, an answer is known by it.

// sentFor is how long connection tracking keeps an exchange of datagrams.
const sentFor = 2 * time.Minute

// Names of the sets of what was sent, before the suffix of the family.
const (
	sentName   = "sent"   // from a port within ip_local_port_range
	servedName = "served" // from another one
)

// flow loads the flow of a packet as the sets of what was sent have it: protocol . remote
// address . its port . own address . its port. out: the packet is on its way out.
func (f *family) flow(out bool) match {
	from, to, size, words := uint32(12), uint32(16), uint32(4), uint32(1)
	if f.addrType.Bytes == 16 {
		from, to, size, words = 8, 24, 16, 4
	}
	fromPort, toPort := uint32(0), uint32(2)
	if out {
		from, to, fromPort, toPort = to, from, toPort, fromPort
	}
	register := uint32(unix.NFT_REG32_00)
	m := append(f.is[:len(f.is):len(f.is)], &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register})
	load := func(base expr.PayloadBase, offset, length uint32) {
		m = append(m, &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length})
	}
	register++
	load(expr.PayloadBaseNetworkHeader, from, size)
	register += words
	load(expr.PayloadBaseTransportHeader, fromPort, 2)
	register++
	load(expr.PayloadBaseNetworkHeader, to, size)
	register += words
	load(expr.PayloadBaseTransportHeader, toPort, 2)
	return m
}

// note puts the flow that is loaded into a set of what was sent, for its time from now
// on. A set that is full ends the rule.
func note(s *nftables.Set) match {
	return match{&expr.Dynset{
		SrcRegKey: unix.NFT_REG_1, SetName: s.Name, SetID: s.ID, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: sentFor,
	}}
}

// rulesAnswers lets pass what comes back in a flow of ours. Such a flow lasts as long as
// either side sends.
func (t *Table) rulesAnswers() {
	c := t.conn.AddChain(t.lay.answers())
	for _, f := range []*family{&t.lay.v4, &t.lay.v6} {
		for _, s := range []*nftables.Set{f.sent, f.served} {
			t.rule(c, "", f.flow(false), match{lookup(s)}, note(s), verdict(expr.VerdictAccept))
		}
	}
}

func (l *layout) answers() *nftables.Chain { return l.chain("answers") }

// rulesSent remembers what leaves. Of TCP, of which sockets tell most, only what begins
// or ends a connection is kept.
func (t *Table) rulesSent() {
	c := t.conn.AddChain(t.lay.sent())
	accept, tcp := verdict(expr.VerdictAccept), protocol(unix.IPPROTO_TCP)
	t.rule(c, "", tcp, tcpFlags(fin|syn|rst, expr.CmpOpEq, 0), accept)
	t.rule(c, "", metaIs(expr.MetaKeyOIF, loopback...), accept)
	t.rule(c, "", metaIs(expr.MetaKeyMARK, binaryutil.NativeEndian.PutUint32(host.TrapMark)...), accept)
	// What answers a stranger: he would bring himself in.
	t.rule(c, "", tcp, tcpFlags(syn|ack, expr.CmpOpEq, syn|ack), accept)
	t.rule(c, "", tcp, tcpFlags(rst|ack, expr.CmpOpEq, rst), accept)
	t.rule(c, "", tcp, tcpFlags(rst, expr.CmpOpEq, rst), match{
		payload(expr.PayloadBaseTransportHeader, 4, 4),
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: make([]byte, 4)}, // RFC 9293 section 3.10.7.1
	}, accept)
	keep := t.conn.AddChain(t.lay.chain("remember"))
	t.rule(c, "", tcp, jump(keep))
	t.rule(c, "", protocol(unix.IPPROTO_UDP), jump(keep))
	// What services send to whoever asks, forged or not, takes no room from what this host
	// begins by itself.
	both := []*family{&t.lay.v4, &t.lay.v6}
	if last := t.opt.EphemeralLast; last != 0 {
		own := match{
			payload(expr.PayloadBaseTransportHeader, 0, 2),
			&expr.Range{
				Op: expr.CmpOpEq, Register: unix.NFT_REG_1,
				FromData: binaryutil.BigEndian.PutUint16(t.opt.EphemeralFirst), ToData: binaryutil.BigEndian.PutUint16(last),
			},
		}
		for _, f := range both {
			t.rule(keep, "", own, f.flow(true), note(f.sent), accept)
		}
	}
	for _, f := range both {
		t.rule(keep, "", f.flow(true), note(f.served), accept)
	}
	t.rule(keep, "no room", counter(unremembered))
}

// asking puts single questions about what was sent, each with one system call and
// without waiting for a transaction.
type asking struct {
	mu              sync.Mutex
	conn            *netlink.Conn
	raw             syscall.RawConn
	seq             uint32
	request, answer []byte
}

func openAsking() (*asking, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &asking{conn: conn, raw: raw, answer: make([]byte, 2<<10)}, nil
}

// Sent reports whether this host has sent something to remote from local in the last two
// minutes: of TCP, what begins or ends a connection. Only rules that have nothing
// tracked know.
func (t *Table) Sent(proto uint8, remote, local netip.AddrPort) bool {
	if !t.untracked.Load() {
		return false
	}
	f, key := t.familyOf(remote.Addr()), flowKey(proto, remote, local)
	return t.asking.has(sentName+f.suffix, key) || t.asking.has(servedName+f.suffix, key)
}

// has reports whether the set has the element. What cannot be known is not there.
func (a *asking) has(set string, key []byte) (there bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seq++
	a.request = appendGet(a.request[:0], a.seq, set, key)
	err := a.raw.Control(func(fd uintptr) {
		if _, err := unix.Write(int(fd), a.request); err != nil {
			return
		}
		for { // it has been answered by now; first comes what an error may have left unread
			n, err := unix.Read(int(fd), a.answer)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case err != nil:
				return
			}
			if err = found(a.answer[:n], a.seq); !errors.Is(err, unix.EBADMSG) {
				there = err == nil
				return
			}
		}
	})
	return err == nil && there
}

// flowKey is the element for a flow: each part is padded to four bytes.
func flowKey(proto uint8, remote, local netip.AddrPort) []byte {
	key := []byte{proto, 0, 0, 0}
	for _, end := range []netip.AddrPort{remote, local} {
		key = append(key, end.Addr().AsSlice()...)
		key = append(key, byte(end.Port()>>8), byte(end.Port()), 0, 0)
	}
	return key
}
