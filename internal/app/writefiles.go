package app

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/respond"
	"portsentry/internal/store/textfile"
)

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

// listing is a host on a blocked file.
type listing struct {
	file *textfile.Blocked
	host netip.Addr
}

// change is what has to become of it: first gone, then there again.
type change struct {
	gone  bool
	entry *textfile.BlockedEntry // nil: it stays gone
}

// maxChanges bounds those that wait for a disk.
const maxChanges = 1 << 17

// writeAgain is when files that could not be written are tried again, though nothing
// happens.
const writeAgain = 5 * time.Second

// writeFiles writes the history and the blocked files, until ctx ends. A disk that
// stalls holds up nothing else.
func (d *daemon) writeFiles(ctx context.Context) error {
	again := time.NewTimer(writeAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.record.due:
			d.record.writeHistory()
		case <-d.record.looking:
			if !d.liftEdited(ctx) {
				again.Reset(writeAgain)
			}
		case <-again.C:
			touch(d.record.looking)
		}
	}
}

// stalled is how long a disk may take before that is a problem.
const stalled = 5 * time.Second

// atDisk does something with the files, and says so when it takes too long.
func (r *recorder) atDisk(do func()) {
	r.disk.Lock()
	defer r.disk.Unlock()
	said := make(chan struct{})
	late := time.AfterFunc(stalled, func() {
		r.problems.set("stalled", fmt.Sprintf("the disk has taken nothing for %v: lines of the history and of the blocked file wait, as far as there is room", stalled))
		close(said)
	})
	do()
	if !late.Stop() {
		<-said
		r.problems.set("stalled", "")
	}
}

// list puts a ban on the blocked file.
func (r *recorder) list(b respond.Ban, host netip.Addr) {
	r.mu.Lock()
	if f := r.lists.of(b.Proto); f != nil {
		r.named(host, func(name string) {
			r.change(f, host, change{entry: &textfile.BlockedEntry{Since: b.Since, Name: name, Host: host, Port: b.Port, Proto: b.Proto}})
		})
	}
	r.mu.Unlock()
	touch(r.listed)
}

// change notes what has to become of a line. Calls hold r.mu.
func (r *recorder) change(f *textfile.Blocked, host netip.Addr, c change) {
	key := listing{f, host}
	was, waits := r.changes[key]
	switch {
	case !waits && len(r.changes) >= maxChanges:
		r.problems.set("listing", "the blocked file does not list everybody: too many wait until it can be written")
		return
	case was.entry != nil && c.entry != nil:
		return // it is on the list
	}
	c.gone = c.gone || was.gone
	r.changes[key] = c
}

// sync makes the blocked files and what is blocked agree, and returns the hosts
// whose lines somebody took out to give them their access back, each with the
// file. With an error it has to be tried again.
func (r *recorder) sync() (lifted map[netip.Addr]string, err error) {
	lifted = make(map[netip.Addr]string)
	r.atDisk(func() { err = r.syncInto(lifted) })
	r.state("unwritten", "the blocked file is not up to date", err)
	return lifted, err
}

// syncInto is sync for those who hold r.disk.
func (r *recorder) syncInto(lifted map[netip.Addr]string) (err error) {
	r.mu.Lock()
	changes, files := r.changes, r.lists.each()
	r.changes = make(map[listing]change)
	r.mu.Unlock()
	var begun []listing // in the order in which they did
	for l, c := range changes {
		if c.gone {
			l.file.Remove(l.host)
		}
		if c.entry != nil {
			begun = append(begun, l)
		}
	}
	slices.SortFunc(begun, func(a, b listing) int { return changes[a].entry.Since.Compare(changes[b].entry.Since) })
	for _, l := range begun {
		if err := l.file.Add(*changes[l].entry); err != nil {
			r.problems.set("listing", "the blocked file does not list everybody: "+err.Error())
		}
	}
	for _, f := range files {
		hosts, ferr := f.Sync()
		if ferr != nil {
			err = ferr
		}
		for _, host := range hosts {
			lifted[host] = f.Path()
		}
	}
	return err
}

// writeHistory writes what waits for it.
func (r *recorder) writeHistory() {
	r.atDisk(func() {
		r.mu.Lock()
		h := r.history
		r.mu.Unlock()
		if h != nil {
			r.state("history", "the history is not written", h.Flush())
		}
	})
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
	r.log.Flush()
	r.writeHistory()
	_, _ = r.sync() // it is too late to lift anything, or to try again
}

// state states a problem with a file, or that it is over.
func (r *recorder) state(key, what string, err error) {
	if err != nil {
		what += ": " + err.Error()
	} else {
		what = ""
	}
	r.problems.set(key, what)
}
