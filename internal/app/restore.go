package app

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"portsentry/internal/host"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
	"portsentry/internal/store/textfile"
)

// restoreTime bounds how long a start waits for the bans of an earlier run.
const restoreTime = 2 * time.Second

// openFiles opens the history and the blocked file. Neither is a reason not to
// watch: what cannot be written is said.
func (d *daemon) openFiles() error {
	if path := d.config.HistoryFile; path != "" {
		h, err := textfile.OpenHistory(path)
		if err != nil {
			d.problems.set("history", fmt.Sprintf("no history is kept: %v", err))
		} else {
			d.record.history = h
			d.onStop(h.Close)
		}
	}
	// Log only: nobody gets on the list, and an earlier one is not ours to clear.
	if path := d.config.BlockedFile; path != "" && blocks(d.config) {
		b, entries, warnings := textfile.OpenBlocked(path)
		d.record.blocked, d.blockedBefore = b, entries
		d.problems.set("blocked", strings.Join(warnings, "\n"))
	}
	return nil
}

// watchFiles notices edits of the files that people edit. One that cannot be
// watched is read at the start only.
func (d *daemon) watchFiles() error {
	var paths []string
	for _, p := range []string{d.config.IgnoreFile, d.config.BlockedFile} {
		if p != "" {
			paths = append(paths, p)
		}
	}
	w, err := host.WatchFiles(paths...)
	if w == nil {
		return err
	}
	if err != nil {
		d.problems.set("files", err.Error())
	}
	d.files = w
	return nil
}

// restore takes over the bans of an earlier run: those that the kernel still
// enforces, and hosts of the blocked file that the owner's commands keep out. A
// line whose ban has ended since is taken out of the file.
func (d *daemon) restore() {
	var rows []respond.InForce
	standing := make(map[netip.Addr]bool)
	if d.table != nil {
		ctx, cancel := context.WithTimeout(context.Background(), restoreTime)
		defer cancel()
		bans, err := d.table.Existing(ctx)
		if err != nil {
			d.problems.set("restore", fmt.Sprintf("some bans of an earlier run stay in the kernel until they end, but are not listed: %v", err))
		}
		listed := make(map[netip.Addr]textfile.BlockedEntry, len(d.blockedBefore))
		for _, e := range d.blockedBefore {
			listed[e.Host] = e
		}
		for _, b := range bans {
			remember(&b, listed[b.Prefix.Addr()], d.started)
			rows = append(rows, respond.InForce{Ban: b, Methods: []string{d.table.Name()}})
			standing[b.Prefix.Addr()] = true
		}
	}
	plan := d.responder.Plan()
	for _, e := range d.blockedBefore {
		if standing[e.Host] {
			continue
		}
		if row, ok := plan.Earlier(e.Host, e.Since, e.Port, e.Proto, d.config); ok {
			rows = append(rows, row)
		} else {
			d.record.blocked.Remove(e.Host)
		}
	}
	d.blockedBefore = nil
	d.responder.Restore(rows)
}

// remember fills in what the kernel does not keep about a ban, as far as the
// blocked file has it.
func remember(b *respond.Ban, e textfile.BlockedEntry, now time.Time) {
	b.Since, b.Times, b.Evidence = now, 1, judge.E1
	if b.Strength == judge.Full {
		b.Evidence = judge.E2
	}
	b.Reason = "taken over from an earlier run"
	if e.Host.IsValid() {
		b.Since, b.Port, b.Proto = e.Since, e.Port, e.Proto
		b.Reason += fmt.Sprintf(": %s port %d", store.ProtoName(e.Proto), e.Port)
	}
}

// closeTable leaves the bans and takes the trap rule away.
func (d *daemon) closeTable() error {
	if d.table == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := d.table.Close(ctx); err != nil {
		return fmt.Errorf("the firewall's trap rule may still be there: %w", err)
	}
	return nil
}

// liftEdited lifts the bans of hosts whose lines somebody took out of the
// blocked file: that is how access has been restored since 1998.
func (d *daemon) liftEdited(ctx context.Context) {
	for _, host := range d.record.sync() {
		if _, err := d.responder.Unban(ctx, host); err != nil {
			d.problems.set("lift", fmt.Sprintf("%s was taken out of %s, but is still banned: %v", host, d.config.BlockedFile, err))
			continue
		}
		d.log.Notice(fmt.Sprintf("adminalert: %s is no longer banned: its line was taken out of %s", host, d.config.BlockedFile))
	}
}
