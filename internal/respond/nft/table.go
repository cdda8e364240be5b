// Package nft bans with nftables, in a table of its own: `inet portsentry`.
// Bans and the lists of whom to spare go in; out come Hits, the packets on
// which the kernel has made a provisional ban by itself.
//
// The table has three parts. Chain pre (prerouting) drops what banned sources
// send, for this host and forwarded alike; where nothing is forwarded there is none, and
// chain trap does that with nothing tracked (Options.Untracked). Chain trap (input) silences
// limited sources and recognises the first packet to a trap port. Chains hit_tcp and
// hit_udp announce that packet, put its source into a provisional set and drop
// it, so that the ban is in the kernel before the source's next packet. User
// space is the authority: it confirms, lengthens, narrows or takes back what
// the kernel began, and a provisional ban that nobody confirms ends by itself.
//
// Strength decides where a source is stopped: Full before connections are
// looked at, Soft after, Limited only where no socket would take the packet, or
// a trap socket of ours (host.TrapMark).
package nft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/respond"
)

// Options say what the kernel may do by itself.
type Options struct {
	// TrapsTCP and TrapsUDP are empty for a protocol whose traps are sockets of
	// ours, or that is not watched.
	TrapsTCP, TrapsUDP config.PortSet
	// EphemeralFirst and EphemeralLast are ip_local_port_range, both included.
	// Within it only a bare SYN is evidence: anything else may be a late
	// answer to something this host sent. Zero: no such range.
	EphemeralFirst, EphemeralLast uint16
	BlockTCP, BlockUDP            config.Block
	// KernelTraps is SCAN_TRIGGER 0 or 1: the first packet decides, so the
	// kernel can. Otherwise there are no trap rules at all.
	KernelTraps bool
	// TrapServed: a SYN, or a new datagram, to a trap is a hit even where a socket
	// would take it.
	TrapServed bool
	// OwnTraps: sockets marked with host.TrapMark are traps, which a limited
	// source does not get to.
	OwnTraps bool
	// LimitedOnly is BLOCK_EVIDENCE="verified": one packet earns nobody more
	// than the limited ban.
	LimitedOnly bool
	// Standby: somebody else keeps out whom the table bans, so it has its sets and no
	// rules, which every packet would pay for. Close ends it.
	Standby bool
	// Untracked: the rules do without connection tracking, for a host that neither
	// forwards packets nor translates destinations. Standby comes first.
	Untracked bool
	// Spare and Peers are in the table from its first packet on.
	Spare []netip.Prefix
	Peers []netip.Addr

	// DynamicSize is how many elements each provisional set, and each of what was sent,
	// holds; 0 means 65536.
	// Reconfigure leaves it as it was.
	DynamicSize uint32
	Provisional time.Duration // length of a provisional ban; 0 means 10 s
}

func (o *Options) fill() {
	if o.DynamicSize == 0 {
		o.DynamicSize = 65536
	}
	if o.Provisional == 0 {
		o.Provisional = 10 * time.Second
	}
}

func (o *Options) trapsTCP() bool {
	return o.KernelTraps && o.BlockTCP != config.BlockNone && len(o.TrapsTCP) > 0
}

func (o *Options) trapsUDP() bool {
	return o.KernelTraps && o.BlockUDP != config.BlockNone && len(less(o.TrapsUDP, o.EphemeralFirst, o.EphemeralLast)) > 0
}

// Table is the table as this process keeps it. Its methods may be called from
// any goroutine.
type Table struct {
	lay     *layout
	news    *news
	lost    chan struct{}
	touched chan struct{}
	hearing chan struct{} // closed once log is set, which is for good

	destroys bool // the kernel can delete elements that may be missing

	asking    *asking
	untracked atomic.Bool // as opt has it

	mu     sync.Mutex // one transaction at a time; guards what follows
	opt    Options    // Spare as it is now; for Peers see peers
	peers  map[netip.Addr]struct{}
	ranges ranges   // bans of ranges, as they were asked for
	nets   segments // and as the kernel has them
	conn   *nftables.Conn
	filled map[*nftables.Set]bool // sets of bans that may hold any: nothing is taken out of the others
	looked map[*nftables.Set]bool // those of full bans in which sources are looked up
	log    *hitLog                // nil: no trap rule has been needed yet
	ours   shape                  // of the table as we left it
	bare   bool                   // it stands again, but its bans went with the one that was taken
	closed bool
}

// Open builds the table in one transaction, or rebuilds what an earlier run
// left: its bans stay with what is left of their time, also when another
// version laid them out differently; rules, traps, Spare and Peers are ours.
// It needs CAP_NET_ADMIN and Linux 5.10 (wildcard of nft_socket), and works in the
// network namespace of the calling thread.
func Open(o Options) (*Table, error) {
	o.fill()
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, hint(err)
	}
	t := &Table{lay: newLayout(o.DynamicSize), conn: conn, filled: make(map[*nftables.Set]bool), looked: make(map[*nftables.Set]bool), lost: make(chan struct{}, 1), touched: make(chan struct{}, 1), hearing: make(chan struct{})}
	if t.asking, err = openAsking(); err == nil {
		t.news, err = openNews()
	}
	if err == nil {
		t.ranges, err = t.readRanges()
	}
	if err == nil {
		err = t.become(o, peerSet(o.Peers), wish{fresh: true})
	}
	if err == nil {
		err = t.probeDestroy()
	}
	if err != nil {
		return nil, errors.Join(hint(err), t.shut())
	}
	return t, nil
}

// Present reports whether an earlier run has left the table, with bans that may
// still be in force.
func Present() bool {
	conn, err := nftables.New()
	if err != nil {
		return false
	}
	_, err = conn.ListTableOfFamily(tableName, nftables.TableFamilyINet)
	return err == nil
}

// Name is the method's name in BLOCK_METHOD.
func (t *Table) Name() string { return string(config.MethodNftables) }

// Takes is for respond.Method: there is a set for every kind of ban of an address or
// an IPv6 /64; a range is banned fully or softly, for all protocols.
func (t *Table) Takes(b *respond.Ban) bool {
	if !isRange(b.Prefix) {
		return true
	}
	return rangeError(b) == nil
}

// Enforces is for respond.Method.
func (t *Table) Enforces() bool { return true }

// Spares is for respond.Sparer: see SetSpare.
func (t *Table) Spares() bool { return true }

// Ends is for respond.Method: elements of a set have a timeout.
func (t *Table) Ends() bool { return true }

// Close is the ordered stop: bans stay and end by themselves, limited bans
// keep their rule, and the trap rules go, because nobody is left to confirm or
// take back what they begin. A second Close does nothing.
func (t *Table) Close(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	err := ctx.Err()
	switch o := t.opt; {
	case err != nil:
	case o.Standby:
		o.Standby, o.KernelTraps = false, false
		err = t.become(o, t.peers, wish{})
	default:
		if err = t.disarm(); err == nil {
			err = t.conn.Flush()
		}
	}
	if errors.Is(err, unix.ENOENT) {
		err = nil // somebody flushed the ruleset: nothing to take back
	}
	if err != nil {
		err = fmt.Errorf("nftables: taking the trap rules out: %w", err)
	}
	return errors.Join(err, t.shut())
}

func (t *Table) shut() error {
	t.closed = true
	err := t.conn.CloseLasting()
	if t.news != nil {
		err = errors.Join(err, t.news.close())
	}
	if t.asking != nil {
		err = errors.Join(err, t.asking.conn.Close())
	}
	if t.log != nil {
		err = errors.Join(err, t.log.conn.Close())
	}
	return err
}

func (t *Table) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// begin takes the lock for one transaction, or says why there can be none.
func (t *Table) begin(ctx context.Context) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, fmt.Errorf("nftables: %w", net.ErrClosed)
	}
	return t.mu.Unlock, nil
}

// commit sends what stage queues as one transaction. It tries again where the
// kernel says ENOENT: an element that stage counted on may end by itself in
// between. A table that is gone stays gone.
func (t *Table) commit(stage func() error) error {
	var err error
	for range 3 {
		if err = stage(); err != nil {
			t.discard()
			return err
		}
		if err = t.conn.Flush(); !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("nftables: table inet %s is not as we left it, did somebody flush the ruleset? %w", tableName, err)
	}
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// discard forgets what is queued. The library does so when it sends, and it
// sends nothing after a mistake such as this: an anonymous set has no updates.
func (t *Table) discard() {
	_ = t.conn.SetAddElements(&nftables.Set{Anonymous: true}, nil)
	_ = t.conn.Flush()
}

// Remove takes the whole table away, bans and all, and says whether there was one.
func Remove() (there bool, err error) {
	conn, err := nftables.New()
	if err != nil {
		return false, hint(err)
	}
	conn.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	switch err := conn.Flush(); {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT): // nor nftables
		return false, nil
	case err != nil:
		return false, hint(err)
	}
	return true, nil
}

// tableFlagOwner is NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h.
const tableFlagOwner = 2

// owned reports whether another program has our table for its own: nobody else may change
// it then, until that program ends.
func owned() bool {
	conn, err := nftables.New()
	if err != nil {
		return false
	}
	t, err := conn.ListTableOfFamily(tableName, nftables.TableFamilyINet)
	return err == nil && t.Flags&tableFlagOwner != 0
}

// hint adds what to do about an error of starting.
func hint(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission) && owned():
		return fmt.Errorf("nftables: %w (another program owns the table inet %s: nft list ruleset names it; the table can be had when it ends)", err, tableName)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("nftables: %w (run as root or with CAP_NET_ADMIN)", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT),
		errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("nftables: %w (needs Linux 5.10 with nf_tables, nfnetlink_log and the nft_fib_inet, nft_limit, nft_log, nft_objref and nft_socket modules, and nf_conntrack with nft_ct on a host that forwards packets; or BLOCK_METHOD=\"none\")", err)
	}
	return fmt.Errorf("nftables: %w", err)
}
