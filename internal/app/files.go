package app

import (
	"context"
	"fmt"
	"strings"

	"portsentry/internal/config"
	"portsentry/internal/host"
	"portsentry/internal/store/textfile"
)

// openHistory opens the history. It is no reason not to watch: what cannot be
// written is said.
func (d *daemon) openHistory(c *config.Config) {
	d.problems.set("history", "")
	if c.HistoryFile == "" {
		return
	}
	h, err := textfile.OpenHistory(c.HistoryFile, c.LogFormat)
	if err != nil {
		d.log.CannotOpen("history", c.HistoryFile)
		d.problems.set("history", fmt.Sprintf("no history is kept: %v", err))
		return
	}
	d.record.mu.Lock()
	d.record.history = h
	d.record.mu.Unlock()
}

// blockedFiles are the names of the blocked files, for TCP and for UDP: the same
// one, but in the habits of 1.x one for each mode.
func blockedFiles(c *config.Config) (tcp, udp string) {
	// Log only: nobody gets on the list, and an earlier one is not ours to clear.
	if c.BlockedFile == "" || !blocks(c) {
		return "", ""
	}
	if c.Dialect == config.Dialect2x {
		return c.BlockedFile, c.BlockedFile
	}
	if c.Modes.TCP != config.Unwatched {
		tcp = textfile.BlockedName(c.BlockedFile, c.Modes.TCP.Word(c.Dialect, false))
	}
	if c.Modes.UDP != config.Unwatched {
		udp = textfile.BlockedName(c.BlockedFile, c.Modes.UDP.Word(c.Dialect, true))
	}
	return tcp, udp
}

// openBlocked opens the blocked files and gives who is on them.
func (d *daemon) openBlocked(c *config.Config) (listed []textfile.BlockedEntry) {
	var warnings []string
	open := func(path string) *textfile.Blocked {
		if path == "" {
			return nil
		}
		f, entries, w := textfile.OpenBlocked(path)
		listed, warnings = append(listed, entries...), append(warnings, w...)
		return f
	}
	tcp, udp := blockedFiles(c)
	var l lists
	l.tcp = open(tcp)
	if l.udp = l.tcp; udp != tcp {
		l.udp = open(udp)
	}
	d.record.mu.Lock()
	d.record.lists = l
	d.record.mu.Unlock()
	d.problems.set("blocked", strings.Join(warnings, "\n"))
	return listed
}

// setFiles follows the files from old to next. Who is banned goes on the new
// list, and the old one stays as it is.
func (d *daemon) setFiles(ctx context.Context, old, next *config.Config) {
	d.record.log.Flush()
	if old.HistoryFile != next.HistoryFile || old.LogFormat != next.LogFormat {
		d.record.disk.Lock()
		d.record.mu.Lock()
		was := d.record.history
		d.record.history = nil
		d.record.mu.Unlock()
		if was != nil {
			was.Close()
		}
		d.record.disk.Unlock()
		d.openHistory(next)
	}
	oldTCP, oldUDP := blockedFiles(old)
	if tcp, udp := blockedFiles(next); tcp != oldTCP || udp != oldUDP {
		d.liftEdited(ctx) // who was taken out of the old one a moment ago
		d.openBlocked(next)
		d.responder.Relist(d.record.list)
	}
	d.record.lookUp(d.names, next.ResolveHost)
	d.setIgnore(next)
	d.followFiles()
}

// setIgnore reads the ignore files of c, if they are not as they were read.
func (d *daemon) setIgnore(c *config.Config) {
	if len(d.ignore) == 0 || d.ignore[0].path != c.IgnoreFile {
		d.ignore = openIgnore(c.IgnoreFile)
	} else {
		d.ignore.changed() // one whose folder could not be watched has no other time
	}
	d.problems.set("ignore", d.ignore.problem())
	d.setAllowed(c)
}

// followFiles notices edits of the files that people edit. One that cannot be
// watched is read at the start only.
func (d *daemon) followFiles() {
	c := d.conf.Load()
	var paths []string
	for _, f := range d.ignore {
		paths = append(paths, f.path)
	}
	paths = append(paths, c.GeoFiles...)
	tcp, udp := blockedFiles(c)
	for _, p := range []string{tcp, udp} {
		if p != "" {
			paths = append(paths, p)
		}
	}
	if d.files != nil {
		d.files.Close()
	}
	w, err := host.WatchFiles(paths...)
	d.files = w
	said := ""
	if err != nil {
		said = err.Error()
	}
	d.problems.set("files", said)
	if w != nil {
		d.base.start("files", w.Run)
	}
}
