package textfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"portsentry/internal/proc"
)

const (
	maxEntries  = 65536
	maxWarnings = 8
	maxFile     = 16 << 20 // bytes; maxEntries lines are about 5 MiB
)

// Errors about the blocked file.
var (
	// ErrFull: 65,536 hosts are listed.
	ErrFull = errors.New("the blocked file lists as many hosts as it may")
	// ErrUntrusted: somebody other than root decides what is in the file.
	ErrUntrusted = errors.New("the blocked file is read once, then left alone; blocked hosts are kept in memory only")
	// ErrBinary: PortSentry 2.x wrote the file, and it could not be converted.
	ErrBinary = errors.New("the blocked file is a binary one of PortSentry 2.x: it is left alone, and blocked hosts are kept in memory only; " +
		"portsentry converts it when it is started again")
)

// BlockedName is the file that 1.x kept for one of its modes, such as
// portsentry.blocked.stcp. word is the mode's.
func BlockedName(path, word string) string { return path + "." + word }

// Blocked is the list of blocked hosts and BLOCKED_FILE, where people see it,
// and take lines out to give a host its access back. Add and Remove change the
// list; Sync makes the file and the list agree. It belongs to one goroutine.
type Blocked struct {
	path string
	kept bool // the file is ours to write

	hosts map[netip.Addr]bool     // true: there is a line in the file
	add   []BlockedEntry          // lines to write
	gone  map[netip.Addr]struct{} // lines to take out

	seen   stamp // of the file as we know it
	moving bool  // somebody else has changed it
	moved  stamp // and that is what it was then
	err    error // of the last Sync
}

// stamp tells whether a file has been written to or replaced. Zero: no file.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

func look(path string) (stamp, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if errors.Is(err, unix.ENOENT) {
		return stamp{}, nil
	}
	return stampOf(&st), err
}

// OpenBlocked reads the file at path. A file or directory that others than root and
// the daemon (proc.Trusts) may write to and a symbolic link are not written to, and the warnings,
// sentences for the log, say so; so do they about lines that cannot be read. A
// binary file of 2.x becomes text, and the original is kept. None of it is a
// reason not to start.
func OpenBlocked(path string) (b *Blocked, entries []BlockedEntry, warnings []string) {
	b = &Blocked{path: path, hosts: make(map[netip.Addr]bool), gone: make(map[netip.Addr]struct{})}
	text, at, err := b.read()
	b.kept = err == nil
	b.seen = at
	if err != nil {
		warnings = append(warnings, err.Error())
	}
	var lines []string
	if isBinary(text) {
		entries, lines = b.takeOver(text)
	} else {
		entries, lines = parseBlocked(text)
	}
	for _, l := range lines {
		warnings = append(warnings, fmt.Sprintf("%s: %s", path, l))
	}
	for _, e := range entries {
		b.hosts[e.Host] = b.kept
	}
	return b, entries, warnings
}

// read returns the text of the file and its stamp. With ErrUntrusted there may
// be text as well.
func (b *Blocked) read() (text []byte, at stamp, err error) {
	distrust := func(why string) error { return fmt.Errorf("%s: %w (%s)", b.path, ErrUntrusted, why) }
	dir := filepath.Dir(b.path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, at, distrust(err.Error())
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, at, distrust(err.Error())
	}
	if !proc.Trusts(st.Uid) || st.Mode&unix.S_IWOTH != 0 {
		err = distrust("others than root may write to " + dir + "; /var/lib/portsentry is a better place")
	}
	f, oerr := os.OpenFile(b.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(oerr, fs.ErrNotExist):
		return nil, at, err
	case errors.Is(oerr, unix.ELOOP):
		return nil, at, distrust("it is a symbolic link")
	case oerr != nil:
		return nil, at, distrust(oerr.Error())
	}
	defer f.Close()
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, at, distrust(err.Error())
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, at, distrust("it is no regular file")
	case !proc.Trusts(st.Uid):
		err = distrust(fmt.Sprintf("it belongs to user %d; try chown root", st.Uid))
	case st.Mode&unix.S_IWOTH != 0:
		err = distrust("everybody may write to it; try chmod o-w")
	}
	text, rerr := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case rerr != nil:
		return nil, at, distrust(rerr.Error())
	case len(text) > maxFile:
		return nil, at, distrust(fmt.Sprintf("it is larger than %d MiB", maxFile>>20))
	}
	return text, stampOf(&st), err
}

// Path is the file's name.
func (b *Blocked) Path() string { return b.path }

// Add lists e, unless its host is listed already.
func (b *Blocked) Add(e BlockedEntry) error {
	if _, listed := b.hosts[e.Host]; listed {
		return nil
	}
	if len(b.hosts) >= maxEntries {
		return ErrFull
	}
	b.hosts[e.Host] = false
	if b.kept {
		b.add = append(b.add, e)
	}
	return nil
}

// Remove takes host off the list. A host that is not listed is no error.
func (b *Blocked) Remove(host netip.Addr) {
	if b.hosts[host] {
		b.gone[host] = struct{}{}
	}
	delete(b.hosts, host)
}

// Sync makes the file and the list agree; call it about once a second. It
// returns the hosts whose lines somebody took out of the file, which are off
// the list now. A file that somebody is writing is let be until it has been the
// same at two calls: editors pass through a missing and a half-written one. Our
// own writes are no edits. What could not be written is tried again next time, and
// the error stands until then.
func (b *Blocked) Sync() (lifted []netip.Addr, err error) {
	if b.kept {
		lifted, b.err = b.sync()
	}
	return lifted, b.err
}

func (b *Blocked) sync() (lifted []netip.Addr, err error) {
	now, err := look(b.path)
	if err != nil {
		return nil, fmt.Errorf("blocked file: %w", err)
	}
	if now != b.seen {
		if !b.moving || now != b.moved {
			b.moving, b.moved = true, now
			return nil, nil
		}
		b.moving = false
		if lifted, err = b.reload(); err != nil {
			b.kept = false
			return nil, err
		}
	}
	b.add = b.unwritten()
	switch {
	case len(b.gone) > 0:
		err = b.rewrite()
	case len(b.add) > 0:
		err = b.append()
	}
	if errors.Is(err, errMoved) {
		return lifted, nil // next time
	}
	if err != nil {
		return lifted, fmt.Errorf("blocked file: %w", err)
	}
	return lifted, nil
}

// reload takes over what somebody else made of the file.
func (b *Blocked) reload() (lifted []netip.Addr, err error) {
	text, at, err := b.read()
	if err == nil && isBinary(text) {
		err = fmt.Errorf("%s: %w", b.path, ErrBinary)
	}
	if err != nil {
		return nil, err
	}
	entries, _ := parseBlocked(text)
	there := make(map[netip.Addr]bool, len(entries))
	for _, e := range entries {
		there[e.Host] = true
		if _, going := b.gone[e.Host]; !going && len(b.hosts) < maxEntries {
			b.hosts[e.Host] = true
		}
	}
	for host, written := range b.hosts {
		if written && !there[host] {
			lifted = append(lifted, host)
			delete(b.hosts, host)
		}
	}
	for host := range b.gone {
		if !there[host] {
			delete(b.gone, host)
		}
	}
	b.seen = at
	return lifted, nil
}

// unwritten returns the entries to add that are still on the list and in no line.
func (b *Blocked) unwritten() []BlockedEntry {
	left := b.add[:0]
	for _, e := range b.add {
		if written, listed := b.hosts[e.Host]; listed && !written {
			left = append(left, e)
		}
	}
	return left
}
