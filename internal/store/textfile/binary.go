package textfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/decode"
)

// The blocked file of PortSentry 2.x: records of an address family, 16 bits in
// host byte order, and the 4 or 16 bytes of an address.

// record2x reads one record at the front of b. Only addresses that a host may
// have count: what else is there is no record.
func record2x(b []byte) (host netip.Addr, size int, ok bool) {
	if len(b) < 2 {
		return host, 0, false
	}
	switch binary.NativeEndian.Uint16(b) {
	case unix.AF_INET:
		size = 2 + 4
	case unix.AF_INET6:
		size = 2 + 16
	default:
		return host, 0, false
	}
	if len(b) < size {
		return host, 0, false
	}
	host, _ = netip.AddrFromSlice(b[2:size])
	host = host.Unmap()
	return host, size, !host.IsUnspecified() && !host.IsMulticast()
}

// isBinary reports whether text is a file of 2.x, without doubt: it begins with
// a whole record, which no line of text does, and no line in it is one of ours.
func isBinary(text []byte) bool {
	if _, _, ok := record2x(text); !ok {
		return false
	}
	for line := range bytes.Lines(text) {
		if _, ok := parseEntry(bytes.TrimSpace(line)); ok {
			return false
		}
	}
	return true
}

// parse2x reads the records of a file of 2.x: its hosts, each once. 2.x listed
// neither time nor port; since stands for all.
func parse2x(data []byte, since time.Time) (entries []BlockedEntry, warnings []string) {
	seen := make(map[netip.Addr]bool)
	end, over := 0, 0
	for end < len(data) {
		host, size, ok := record2x(data[end:])
		if !ok {
			warnings = append(warnings, fmt.Sprintf("the last %d bytes, from byte %d on, are damaged and left out; 2.x read no further either", len(data)-end, end))
			break
		}
		end += size
		switch {
		case seen[host]:
		case len(entries) == maxEntries:
			over++
		default:
			seen[host] = true
			entries = append(entries, BlockedEntry{Since: since, Host: host, Proto: decode.ProtoTCP})
		}
	}
	if over > 0 {
		warnings = append(warnings, fmt.Sprintf("%d hosts beyond the first %d are left out", over, maxEntries))
	}
	return entries, warnings
}

// takeOver reads a file of 2.x and, where the file is ours to write, puts one of
// text in its place.
func (b *Blocked) takeOver(data []byte) (entries []BlockedEntry, warnings []string) {
	since := time.Unix(b.seen.mtime.Unix())
	if since.Unix() < 0 || since.Unix() > maxSeconds {
		since = time.Unix(0, 0)
	}
	entries, warnings = parse2x(data, since)
	if !b.kept {
		return entries, warnings
	}
	original, err := b.convert(entries)
	if err != nil {
		b.kept = false
		return entries, append(warnings, fmt.Sprintf("%v (%v)", ErrBinary, err))
	}
	return entries, append(warnings, fmt.Sprintf("it was a binary file of PortSentry 2.x and is text now; %d hosts were taken over, and the original is kept as %s", len(entries), original))
}

// convert keeps the original under another name and replaces it by text. The
// original is there at every moment, under one name or both.
func (b *Blocked) convert(entries []BlockedEntry) (original string, err error) {
	if original, err = b.keepOriginal(); err != nil {
		return "", err
	}
	if err := b.resee2x(); err != nil {
		return "", err
	}
	var text []byte
	for i := range entries {
		text = appendEntry(text, &entries[i])
	}
	return original, b.replace(text)
}

// keepOriginal gives the file a second name. A file that has that name already
// is not touched, unless it is this one: an earlier attempt got no further.
func (b *Blocked) keepOriginal() (string, error) {
	const names = 100
	for i := range names {
		name := b.path + ".2x"
		if i > 0 {
			name = fmt.Sprintf("%s.%d", name, i)
		}
		err := os.Link(b.path, name)
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		if old, lerr := look(name); lerr == nil && old.dev == b.seen.dev && old.ino == b.seen.ino {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s.2x and %d names like it are taken", b.path, names-1)
}

// resee2x notes the state of the file after it got a second name, if nothing
// else happened to it.
func (b *Blocked) resee2x() error {
	now, err := look(b.path)
	if err != nil {
		return err
	}
	old := b.seen
	if old.ctime = now.ctime; now != old {
		return errMoved
	}
	b.seen = now
	return nil
}
