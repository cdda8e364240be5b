package app

import (
	"net/netip"
	"sync"
	"time"

	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/store/textfile"
	"portsentry/internal/view/log"
)

// flushAfter is how long a line may wait for others to be written with.
const flushAfter = 10 * time.Millisecond

// recorder writes what happened, to the log and to the files of old. Calls may
// come from any goroutine. Lines are written together, at most flushAfter later.
type recorder struct {
	mu       sync.Mutex
	log      *log.Writer
	history  *textfile.History // nil: not wanted
	blocked  *textfile.Blocked // nil: not wanted
	problems *problems

	dirty  chan struct{} // says that there is something to flush
	listed chan struct{} // says that the blocked file has to be written
}

func newRecorder(l *log.Writer, p *problems) *recorder {
	return &recorder{log: l, problems: p, dirty: make(chan struct{}, 1), listed: make(chan struct{}, 1)}
}

// scan records one sighting with its outcome.
func (r *recorder) scan(rec *store.Record) {
	r.mu.Lock()
	r.log.Scan(rec)
	if r.history != nil {
		r.failed("history", "the history is not written", r.history.Append(rec))
	}
	r.mu.Unlock()
	touch(r.dirty)
}

// actions records what was done about a host after its sighting was recorded.
func (r *recorder) actions(a netip.Addr, actions []respond.Action) {
	if len(actions) == 0 {
		return
	}
	r.mu.Lock()
	r.log.Actions(a, actions)
	r.mu.Unlock()
	touch(r.dirty)
}

// Began puts a ban on the blocked file; for respond.Ledger.
func (r *recorder) Began(b respond.Ban, host netip.Addr) {
	r.mu.Lock()
	if r.blocked != nil {
		err := r.blocked.Add(textfile.BlockedEntry{Since: b.Since, Host: host, Port: b.Port, Proto: b.Proto})
		r.failed("blocked", "the blocked file does not list everybody", err)
	}
	r.mu.Unlock()
	touch(r.listed)
}

// Ended takes a ban off the blocked file; for respond.Ledger.
func (r *recorder) Ended(_ respond.Ban, host netip.Addr, undone []respond.Action) {
	r.mu.Lock()
	if r.blocked != nil {
		r.blocked.Remove(host)
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

// sync makes the blocked file and what is blocked agree, and returns the hosts
// whose lines somebody took out to give them their access back.
func (r *recorder) sync() []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.blocked == nil {
		return nil
	}
	lifted, err := r.blocked.Sync()
	r.failed("blocked", "the blocked file is not up to date", err)
	return lifted
}

// failed states a problem with a file; it stands until the daemon ends, for
// something is missing from the file.
func (r *recorder) failed(key, what string, err error) {
	if err != nil {
		r.problems.set(key, what+": "+err.Error())
	}
}
