package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxPeers  = 1 << 16
	keepPeers = 24 * time.Hour

	// How often Run asks for new connections: seldom while nobody comes, for a
	// wake-up costs more than the question; often for a while after somebody did.
	peerIdle   = 2 * time.Second
	peerTick   = 250 * time.Millisecond
	peerLively = 2 * time.Second

	peerResync = 15 * time.Minute // a listing at least this often: long connections stay known

	// peerShare bounds the time spent: one part in 30, 3 % of one CPU. Run waits
	// that much longer than an answer took; Fresh spends what it has saved up,
	// peerBurst at the most, so that twenty who have just connected and are then
	// impersonated within a moment are all found.
	peerShare = 30
	peerBurst = 20 * time.Millisecond
	// freshLimit is how long Fresh may keep its caller. Where listing takes
	// longer, Run alone does it.
	freshLimit = 20 * time.Millisecond
)

// ErrStale says that connections opened in the last moments may not be known
// yet: asking again so soon would cost too much. If there are any, they come as
// a PeerChange.
var ErrStale = errors.New("peers not renewed")

// PeerChange says who became a peer and who is none any more.
type PeerChange struct{ Added, Removed []netip.Addr }

// Peers knows the remote ends of TCP connections to ports that are served here:
// those connected now, and those seen within keepPeers. It believes the TCP
// stack, which counts a connection after its handshake; connection tracking is
// taken in by forged packets. A connection to a trap socket of ours (TrapMark)
// makes nobody a peer. At most maxPeers are kept, the longest unseen go
// first. All methods are safe for concurrent use.
type Peers struct {
	ask  sync.Mutex // guards what is asked: the fields up to the next lock
	diag *diag
	snmp *os.File
	buf  [4096]byte

	opens    uint64        // counter of passive opens when the last listing began
	settle   time.Time     // list once more after this; zero: no need
	listed   time.Time     // start of the last listing
	lively   time.Time     // ask often until then
	nextList time.Time     // not before, by Run
	credit   time.Duration // that Fresh may spend
	credited time.Time
	cost     time.Duration // of the last listing

	mu    sync.RWMutex // guards the book and the counters
	book  peerBook
	stats PeerStats

	changes chan PeerChange
	wake    chan struct{} // the book has changes to tell
}

// PeerStats are counters of Peers.
type PeerStats struct {
	Peers   int    // known now
	Dropped uint64 // no room: more than maxPeers were connected at once
	Listed  uint64 // listings of connections
	Failed  uint64 // attempts that failed
}

// NewPeers lists the connections there are, so that sessions opened before us
// are known. The first PeerChange, with all of them (or none), is waiting in
// Changes when it returns.
func NewPeers() (*Peers, error) {
	d, err := newDiag(unix.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	p := &Peers{
		diag:    d,
		book:    newPeerBook(maxPeers, keepPeers),
		changes: make(chan PeerChange, 1),
		wake:    make(chan struct{}, 1),
	}
	if p.snmp, err = openNet("snmp"); err != nil {
		return nil, errors.Join(fmt.Errorf("peers: %w", err), d.close())
	}
	opens, err := p.passiveOpens()
	if err == nil {
		err = p.list(opens)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("peers: %w", err), p.Close())
	}
	p.changes <- p.book.take()
	return p, nil
}

// Close frees the socket. Run must have returned.
func (p *Peers) Close() error { return errors.Join(p.diag.close(), p.snmp.Close()) }

// Has reports whether a is a peer, as far as was known after the last listing.
func (p *Peers) Has(a netip.Addr) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.book.seen[a]
	return ok
}

// Stats gives the counters.
func (p *Peers) Stats() PeerStats {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s := p.stats
	s.Peers, s.Dropped = len(p.book.seen), p.book.dropped
	return s
}

// Changes gives what changes, coalesced and complete: applied in order to an
// empty set it makes the set of peers. There is one reader.
func (p *Peers) Changes() <-chan PeerChange { return p.changes }

// Fresh makes sure that connections opened until now are known, or returns
// ErrStale.
func (p *Peers) Fresh() error {
	p.ask.Lock()
	defer p.ask.Unlock()
	start := time.Now()
	p.credit = min(peerBurst, p.credit+start.Sub(p.credited)/peerShare)
	p.credited = start
	if p.credit <= 0 {
		return ErrStale
	}
	defer func() { p.credit -= time.Since(start) }()
	opens, err := p.passiveOpens()
	switch {
	case err != nil:
		return fmt.Errorf("peers: %w", err)
	case opens == p.opens:
		return nil
	case p.cost > freshLimit:
		return ErrStale
	}
	if err := p.list(opens); err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	return nil
}

// Run keeps the peers up to date and tells changes until ctx ends.
func (p *Peers) Run(ctx context.Context) error {
	tick := time.NewTimer(peerTick)
	defer tick.Stop()
	var next PeerChange
	for {
		var out chan<- PeerChange
		if len(next.Added)+len(next.Removed) > 0 {
			out = p.changes
		} else {
			p.mu.Lock()
			next = p.book.take()
			p.mu.Unlock()
			if len(next.Added)+len(next.Removed) > 0 {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			wait, err := p.tick()
			if err != nil {
				p.mu.Lock()
				p.stats.Failed++
				p.mu.Unlock()
			}
			tick.Reset(wait)
		case <-p.wake:
		case out <- next:
			next = PeerChange{}
		}
	}
}

// tick lists the connections if there are new ones and the last listing was
// long enough ago for what it cost. It returns when to ask again.
func (p *Peers) tick() (time.Duration, error) {
	p.ask.Lock()
	defer p.ask.Unlock()
	now := time.Now()
	opens, err := p.passiveOpens()
	if err != nil {
		return peerIdle, err
	}
	if opens != p.opens {
		p.lively = now.Add(peerLively)
	}
	due := opens != p.opens || !p.settle.IsZero() && !now.Before(p.settle) || now.Sub(p.listed) >= peerResync
	if due && !now.Before(p.nextList) {
		err = p.list(opens)
	}
	if now.Before(p.lively) {
		return peerTick, err
	}
	return peerIdle, err
}

// list notes who is connected to a served port. opens is the counter as read
// before.
func (p *Peers) list(opens uint64) error {
	start := time.Now()
	var served tcpServed
	err := served.list(p.diag)
	if err == nil {
		err = p.diag.each(unix.IPPROTO_TCP, afterHandshake, func(s socket) {
			a := s.remote.Addr()
			if s.trap || !mayBePeer(a) {
				return
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			// Who is known stays known while any connection of his stands: his
			// listener may have gone or been restarted meanwhile. TIME_WAIT does not
			// count for that: it bears no mark, and may be of a trap.
			_, known := p.book.seen[a]
			stands := s.state != unix.BPF_TCP_TIME_WAIT
			if known && stands || served.has(s.local.Port()) {
				p.book.see(a, start)
			}
		})
	}
	p.cost = time.Since(start)
	p.nextList = start.Add((peerShare + 1) * p.cost)
	if err != nil {
		return err
	}
	// The counter moves some microseconds before the connection is in the
	// table, and the CPU that does it may lose its turn in between: what moved
	// the counter just now may not have been listed.
	p.settle = time.Time{}
	if opens != p.opens {
		p.settle = start.Add(peerTick / 2)
		p.lively = start.Add(peerLively) // Run gets to it soon, whoever asked now
	}
	p.opens, p.listed = opens, start

	p.mu.Lock()
	p.book.endRound(start)
	p.stats.Listed++
	changed := len(p.book.pending) > 0
	p.mu.Unlock()
	if changed {
		p.wakeRun()
	}
	return nil
}

// passiveOpens reads how many connections others have opened to us since the
// namespace began: RFC 4022 tcpPassiveOpens, the sixth value of the second line
// "Tcp:" of net/snmp.
func (p *Peers) passiveOpens() (uint64, error) {
	n, err := p.snmp.ReadAt(p.buf[:], 0)
	if n == 0 {
		return 0, fmt.Errorf("read net/snmp: %w", err)
	}
	return parsePassiveOpens(p.buf[:n])
}

func parsePassiveOpens(b []byte) (uint64, error) {
	tcp := []byte("\nTcp: ")
	_, names, _ := bytes.Cut(b, tcp)
	_, values, _ := bytes.Cut(names, tcp)
	for range 5 {
		_, values, _ = bytes.Cut(values, []byte{' '})
	}
	value, _, _ := bytes.Cut(values, []byte{' '})
	v, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("net/snmp has no count of passive opens: %w", err)
	}
	return v, nil
}
