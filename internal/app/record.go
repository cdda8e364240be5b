package app

import (
	"net/netip"
	"sync"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/host"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/store/textfile"
	"portsentry/internal/view/log"
)

// flushEvery is how long a line may wait for others to be written with. One that
// comes alone waits for nobody.
const flushEvery = 50 * time.Millisecond

// recorder writes what happened, to the log and to the files of old. Calls may
// come from any goroutine. Lines are written together, at most flushEvery later;
// those about a host whose name is being looked up when it is known.
type recorder struct {
	mu       sync.Mutex
	log      *log.Writer
	history  *textfile.History // nil: not wanted
	lists    lists
	problems *problems

	names    *host.Names
	wanted   bool                               // RESOLVE_HOST
	awaiting map[netip.Addr][]func(name string) // what waits for a name, in order
	waiting  int                                // how much in all

	dirty  chan struct{} // says that there is something to flush
	listed chan struct{} // says that a blocked file has to be written
}

// lists are the blocked files. In the habits of 1.x each protocol has its own.
type lists struct{ tcp, udp *textfile.Blocked } // nil: not wanted; the same one twice otherwise

func (l lists) of(proto uint8) *textfile.Blocked {
	if proto == decode.ProtoUDP {
		return l.udp
	}
	return l.tcp
}

// each are the files, once each.
func (l lists) each() []*textfile.Blocked {
	var out []*textfile.Blocked
	if l.tcp != nil {
		out = append(out, l.tcp)
	}
	if l.udp != nil && l.udp != l.tcp {
		out = append(out, l.udp)
	}
	return out
}

// maxAwaiting bounds what may wait for names; beyond it addresses are shown.
const maxAwaiting = 1024

func newRecorder(l *log.Writer, p *problems) *recorder {
	return &recorder{
		log: l, problems: p, awaiting: make(map[netip.Addr][]func(string)),
		dirty: make(chan struct{}, 1), listed: make(chan struct{}, 1),
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
	_, waits := r.awaiting[src]
	if waits || r.wanted && rec.Verdict.Spared == judge.NotSpared {
		whole := *rec
		r.named(src, func(name string) {
			whole.Name = name
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
	if r.history != nil {
		r.failed("history", "the history is not written", r.history.Append(rec))
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
		r.failed("history", "the history is not written", r.history.BlockedLate(rec))
	}
	r.mu.Unlock()
	touch(r.dirty)
}

// Began puts a ban on the blocked file; for respond.Ledger.
func (r *recorder) Began(b respond.Ban, host netip.Addr) {
	r.mu.Lock()
	if f := r.lists.of(b.Proto); f != nil {
		r.named(host, func(name string) {
			err := f.Add(textfile.BlockedEntry{Since: b.Since, Name: name, Host: host, Port: b.Port, Proto: b.Proto})
			r.failed("blocked", "the blocked file does not list everybody", err)
		})
	}
	r.mu.Unlock()
	touch(r.listed)
}

// Ended takes a ban off the blocked files; for respond.Ledger.
func (r *recorder) Ended(_ respond.Ban, host netip.Addr, _ respond.End, undone []respond.Action) {
	remove := func(string) {
		for _, f := range r.lists.each() {
			f.Remove(host)
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
	touch(r.listed)
}

func touch(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// flush writes everything out.
func (r *recorder) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log.Flush()
	if r.history != nil {
		r.failed("history", "the history is not written", r.history.Flush())
	}
}

// historyLost is how many lines the history lacks, if one is kept.
func (r *recorder) historyLost() (lost uint64, kept bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.history == nil {
		return 0, false
	}
	return r.history.Stats().Lost, true
}

// close writes what still waits for a name, and everything else, out.
func (r *recorder) close() {
	r.mu.Lock()
	r.wanted = false
	for a := range r.awaiting {
		r.release(a, "")
	}
	r.mu.Unlock()
	r.flush()
	r.sync()
}

// sync makes the blocked files and what is blocked agree, and returns the hosts
// whose lines somebody took out to give them their access back, each with the
// file.
func (r *recorder) sync() map[netip.Addr]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lifted := make(map[netip.Addr]string)
	for _, f := range r.lists.each() {
		hosts, err := f.Sync()
		r.failed("blocked", "the blocked file is not up to date", err)
		for _, host := range hosts {
			lifted[host] = f.Path()
		}
	}
	return lifted
}

// failed states a problem with a file; it stands until the daemon ends, for
// something is missing from the file.
func (r *recorder) failed(key, what string, err error) {
	if err != nil {
		r.problems.set(key, what+": "+err.Error())
	}
}
