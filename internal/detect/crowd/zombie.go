package crowd

import (
	"fmt"
	"net/netip"
	"time"

	"portsentry/internal/decode"
)

// An idle scan (nmap -sI) sends its SYNs in the name of a zombie and reads off the
// zombie's IP ID what became of them, by SYN-ACKs that the zombie's stack answers with a
// RST (RFC 9293 section 3.10.7.1). If this host is the zombie, one source sends SYN-ACKs
// out of nowhere, to one port of one address, each a new one (the source port or the
// sequence number goes on by a little), again and again.
//
// The answers of a flood's victim look the other way round: they come from the port that
// was flooded, to ports that somebody drew. Retransmissions of one SYN-ACK have the same
// numbers. The answers of the target of such a scan come from the ports that are scanned,
// open ones only: few, and not next to each other; and RSTs from the closed ones, which
// nobody sends who wants to see ours. The ports of a victim that was flooded in our name
// through all of its ports from one of ours are next to each other only where all are
// open. A source port that goes on by 1 to 16 by accident does so once in 4,096, ten times
// out of zombieProbes hardly ever.
//
// nmap takes six probes, 30 ms apart, to learn how the IP ID grows, and gives up where it
// does not, as with Linux, whose RSTs have none: zombieTries of them, if sequence numbers
// go on by a little too, are such an attempt (two random numbers of 32 bits are so close
// once in 2^16). Without that (hping draws them) it takes zombieProbes, over zombieTime
// at least. Slower than one in zombieIdle, a new count begins.
const (
	zombieTries  = 6
	zombieProbes = 12
	zombieIdle   = 5 * time.Minute
	zombieTime   = time.Second
)

type watcher struct {
	key         uint64 // hash of the source; 0: free
	src, dst    netip.Addr
	first, last int64
	seq         uint32
	sport, port uint16
	next        int  // SYN-ACKs that went on from the one before
	close       int  // of them: with the sequence number too
	other       int  // packets that are no such thing
	told        bool // there is a notice
	notice      Notice
}

type watchers struct {
	buckets [][ways]watcher
	shift   uint
}

func (t *watchers) init() { t.buckets, t.shift = buckets[[ways]watcher](256) }

// watched looks whether the packet is one of somebody's who watches our IP ID.
func (c *Crowd) watched(p *decode.Probe, h uint64) {
	if p.Proto != decode.ProtoTCP {
		return
	}
	h |= 1
	b := &c.watchers.buckets[h>>c.watchers.shift]
	w := &b[0]
	for i := range b {
		if b[i].key == h {
			w = &b[i]
			break
		}
		if !b[i].told && (w.told || b[i].last < w.last) {
			w = &b[i]
		}
	}
	if w.key != h && w.told {
		c.stats.Notices++
		return // all four watch: enough
	}
	synAck := p.Flags&(decode.SYN|decode.ACK|decode.RST) == decode.SYN|decode.ACK
	if w.key != h || p.Time-w.last > int64(zombieIdle) && !w.told {
		if synAck {
			*w = watcher{key: h, src: p.Src, dst: p.Dst, first: p.Time, last: p.Time, seq: p.Seq, sport: p.SrcPort, port: p.DstPort}
		} else if w.key != h {
			*w = watcher{key: h, src: p.Src, dst: p.Dst, first: p.Time, last: p.Time, other: 1}
		}
		return
	}
	port, seq := p.SrcPort-w.sport, p.Seq-w.seq
	switch {
	case synAck && p.DstPort == w.port && p.Dst == w.dst && port == 0 && seq == 0: // retransmitted
	case synAck && p.DstPort == w.port && p.Dst == w.dst && (port <= 16 && port > 0 || port == 0 && seq < 1<<16):
		w.next++
		if seq < 1<<16 {
			w.close++
		}
	default:
		w.other++
	}
	w.seq, w.sport = p.Seq, p.SrcPort
	if w.next == 0 {
		w.port, w.dst = p.DstPort, p.Dst // not begun yet
	}
	w.last = max(w.last, p.Time)
	if w.told {
		w.notice.Packets++
		w.notice.Last = w.last
		return
	}
	// One that does not go on is allowed in ten: source ports begin anew now and then.
	if w.close+1 >= zombieTries && w.other == 0 ||
		w.next+1 >= zombieProbes && w.other*10 <= w.next && w.last-w.first >= int64(zombieTime) {
		w.told = true
		w.notice = Notice{What: Zombie, First: w.first, Last: w.last, Packets: uint64(w.next + w.other + 1), Sources: 1, Victim: w.src,
			Proto: decode.ProtoTCP, Port: w.port,
			Reason: fmt.Sprintf("%s sends SYN-ACKs to port %d again and again that nobody asked for: it watches the IP ID of this host, to scan others in its name (idle scan)", w.src, w.port)}
		c.notices.begin(&w.notice, &c.stats)
	}
}

// tick ends what was silent for zombieIdle.
func (t *watchers) tick(c *Crowd) {
	if c.now%(16*1e9) < 1e9 {
		t.end(c, c.now-int64(zombieIdle))
	}
}

func (t *watchers) stop(c *Crowd) { t.end(c, c.now+1) }

func (t *watchers) end(c *Crowd, before int64) {
	for i := range t.buckets {
		for j := range t.buckets[i] {
			if w := &t.buckets[i][j]; w.told && w.last < before {
				c.notices.end(&w.notice, &c.stats)
				*w = watcher{}
			}
		}
	}
}
