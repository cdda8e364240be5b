package crowd

import "net/netip"

// NoticeKind says what a Notice is about. None of them is a scan.
type NoticeKind uint8

// What notices are about.
const (
	Backscatter NoticeKind = iota // answers to what others sent in our name
	Flood                         // new sources, one contact each, faster than there can be people
	Worm                          // one port, many sources
	Zombie                        // somebody watches our IP ID: this host is the zombie of an idle scan
)

func (k NoticeKind) String() string {
	return [...]string{"backscatter", "flood", "worm", "zombie"}[k&3]
}

// Notice is handed out when something begins, with End 0, and once more when it is
// over, with the same ID.
type Notice struct {
	ID               uint64 // from 1 in each Crowd
	What             NoticeKind
	First, Last, End int64      // unix nanoseconds; End: when it was over, 0 while it goes on
	Packets          uint64     // packets (backscatter, zombie) or contacts
	Sources          int        // distinct ones, about
	Victim           netip.Addr // backscatter: who answered most, if it was most of them; zombie: who watches
	Proto            uint8      // flood, worm
	Port             uint16     // flood, worm: 0 when there is no one port
	Reason           string     // in words, for people
}

// queued is how many notices wait to be fetched.
const queued = 64

type notices struct {
	queue  []Notice
	lastID uint64
}

func (q *notices) begin(n *Notice, st *Stats) {
	q.lastID++
	n.ID = q.lastID
	q.put(n, st)
}

func (q *notices) end(n *Notice, st *Stats) {
	n.End = n.Last
	q.put(n, st)
}

func (q *notices) put(n *Notice, st *Stats) {
	for i := range q.queue {
		if q.queue[i].ID == n.ID { // it is over before anybody asked
			q.queue[i] = *n
			return
		}
	}
	if len(q.queue) >= queued {
		st.Notices++
		return
	}
	q.queue = append(q.queue, *n)
}

func (q *notices) fetch(yield func(Notice) bool) {
	for len(q.queue) > 0 {
		n := q.queue[0]
		q.queue = q.queue[1:]
		if !yield(n) {
			return
		}
	}
	q.queue = nil
}
