package app

import (
	"net/netip"
	"sync"
	"time"

	"portsentry/internal/host"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/store/sqlite"
	"portsentry/internal/store/textfile"
	"portsentry/internal/view/log"
)

// flushEvery is how long a line may wait for others to be written with. One that
// comes alone waits for nobody.
const flushEvery = 50 * time.Millisecond

// recorder writes what happened, to the log and to the files of old. Calls may
// come from any goroutine, and wait for no disk: writeFiles does. Lines are written
// together, at most flushEvery later; those about a host whose name is being looked up
// when it is known.
type recorder struct {
	mu       sync.Mutex
	log      *log.Writer
	history  *textfile.History // nil: not wanted
	journal  *sqlite.Journal
	lists    lists
	changes  map[listing]change // of the blocked files, which nobody has written yet
	cut      *cutter            // nil: no connections are tracked
	sized    func()             // called when there are more bans, or fewer
	problems *problems
	feed     *feed   // for those who follow
	learned  learned // by whom, of what

	names    *host.Names
	wanted   bool                               // RESOLVE_HOST
	awaiting map[netip.Addr][]func(name string) // what waits for a name, in order
	waiting  int                                // how much in all

	dirty   chan struct{} // says that there is something to flush
	due     chan struct{} // says that the history has to be written
	listed  chan struct{} // says that a blocked file has to be written
	looking chan struct{} // says that it may be time to

	disk sync.Mutex // held, before mu, by who works with the files: it may take long
}

// maxAwaiting bounds what may wait for names; beyond it addresses are shown.
const maxAwaiting = 1024

func newRecorder(l *log.Writer, p *problems, f *feed) *recorder {
	return &recorder{
		log: l, problems: p, feed: f, sized: func() {}, awaiting: make(map[netip.Addr][]func(string)), changes: make(map[listing]change),
		dirty: make(chan struct{}, 1), due: make(chan struct{}, 1), listed: make(chan struct{}, 1), looking: make(chan struct{}, 1),
	}
}

// lookUp says whose names are looked up: with wanted, everybody's.
func (r *recorder) lookUp(n *host.Names, wanted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names, r.wanted = n, wanted
}

// named calls write with the name of a, at once or when it is known. What is
// written about one host stays in order. Calls hold r.mu, and so does write.
func (r *recorder) named(a netip.Addr, write func(name string)) {
	if queue, waits := r.awaiting[a]; waits {
		if r.waiting < maxAwaiting {
			r.awaiting[a] = append(queue, write)
			r.waiting++
			return
		}
		r.release(a, "")
	}
	if !r.wanted {
		write("")
		return
	}
	if name, known := r.names.Cached(a); known {
		write(name)
		return
	}
	if r.waiting >= maxAwaiting {
		write("")
		return
	}
	r.awaiting[a] = []func(string){write}
	r.waiting++
	asked := r.names.Ask(a, func(name string) {
		r.mu.Lock()
		r.release(a, name)
		r.mu.Unlock()
		touch(r.dirty)
		touch(r.listed)
	})
	if !asked {
		r.release(a, "")
	}
}

// release writes what waits for the name of a.
func (r *recorder) release(a netip.Addr, name string) {
	queue := r.awaiting[a]
	delete(r.awaiting, a)
	r.waiting -= len(queue)
	for _, write := range queue {
		write(name)
	}
}

// scan records one sighting with its outcome.
func (r *recorder) scan(rec *store.Record) {
	r.mu.Lock()
	src := rec.Verdict.Sighting.Src
	r.journal.Seen(rec)
	_, waits := r.awaiting[src]
	if waits || r.wanted && rec.Verdict.Spared == judge.NotSpared {
		whole := *rec
		r.named(src, func(name string) {
			whole.Name = name
			r.journal.Named(&whole)
			r.write(&whole)
		})
	} else {
		r.write(rec)
	}
	r.mu.Unlock()
	touch(r.dirty)
}

func (r *recorder) write(rec *store.Record) {
	r.log.Scan(rec)
	r.feed.sighting(rec)
	if r.history != nil && r.history.Append(rec) {
		touch(r.due)
	}
}

// actions records what was done about a host after its sighting was recorded.
func (r *recorder) actions(a netip.Addr, actions []respond.Action) {
	if len(actions) == 0 {
		return
	}
	r.mu.Lock()
	if _, waits := r.awaiting[a]; waits {
		r.named(a, func(string) { r.log.Actions(a, actions) })
	} else {
		r.log.Actions(a, actions)
	}
	r.mu.Unlock()
	touch(r.dirty)
}

// blockedLate records that the host of a sighting which was recorded before has
// been blocked by a step that ended only now.
func (r *recorder) blockedLate(rec *store.Record) {
	r.mu.Lock()
	if r.history != nil {
		if r.wanted {
			rec.Name, _ = r.names.Cached(rec.Verdict.Sighting.Src)
		}
		if r.history.BlockedLate(rec) {
			touch(r.due)
		}
	}
	r.mu.Unlock()
	touch(r.dirty)
}

// Began is told of a ban that begins, or becomes another; for respond.Ledger.
func (r *recorder) Began(b respond.Ban, host netip.Addr) {
	r.log.Began(&b)
	r.feed.began(&b)
	r.journal.Began(b, host)
	r.learned.banned(host, b.Since)
	touch(r.dirty)
	r.list(b, host)
	r.cut.began(&b)
	r.sized()
}

// Ended takes a ban off the blocked files; for respond.Ledger.
func (r *recorder) Ended(b respond.Ban, host netip.Addr, end respond.End, undone []respond.Action) {
	r.feed.ended(&b, end)
	r.journal.Ended(b, host, end)
	remove := func(string) {
		r.log.Ended(&b, end)
		for _, f := range r.lists.each() {
			r.change(f, host, change{gone: true})
		}
	}
	r.mu.Lock()
	if _, waits := r.awaiting[host]; waits {
		r.named(host, remove) // behind its own beginning
	} else {
		remove("")
	}
	r.mu.Unlock()
	r.actions(host, undone)
	r.sized()
	touch(r.dirty)
	touch(r.listed)
}

func touch(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// flush has everything written out.
func (r *recorder) flush() {
	r.log.Flush()
	touch(r.due)
}
