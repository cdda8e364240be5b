package listen

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// losses is what is known of contacts that the kernel lost. It is guarded by
// Traps.mu.
//
// A TCP listener counts every segment that it throws away: the reset of a
// connection that is half open, a stray FIN or ACK, and the SYN or ACK that
// finds the accept queue full. Only the last is a loss. The namespace counts it
// apart, for all listeners. So each number is a bound to the other.
type losses struct {
	closed [2]uint64 // drops of sockets that are closed, by row
	first  uint64    // overflows at Open
	last   uint64    // overflows since, when they were last read
}

// lost bounds the contacts that were lost from above.
func (t *Traps) lost() uint64 {
	drops := t.losses.closed
	for _, s := range t.sockets {
		drops[s.row()] += s.drops()
	}
	if n, err := t.overflows(); err == nil {
		t.losses.last = n - t.losses.first
	}
	return min(drops[0], t.losses.last) + drops[1]
}

// discard closes a socket and keeps its number.
func (t *Traps) discard(fd int, s *socket) error {
	t.losses.closed[s.row()] += s.drops()
	delete(t.sockets, fd)
	return unix.Close(fd)
}

// overflows reads how often an accept queue of our namespace was full. It is
// not ListenDrops, which has connections in it that were never completed.
func (t *Traps) overflows() (uint64, error) {
	var b [16 << 10]byte // three times what Linux 6.18 has
	n, err := t.netstat.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return counter(b[:n], "TcpExt:", "ListenOverflows")
}

// counter finds a counter in the text of net/netstat: a line of names is
// followed by one of values, both of which begin with the group.
func counter(text []byte, group, name string) (uint64, error) {
	var names []string
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		switch {
		case len(fields) == 0 || string(fields[0]) != group:
		case names == nil:
			for _, f := range fields {
				names = append(names, string(f))
			}
		default:
			i := slices.Index(names, name)
			if i < 1 || i >= len(fields) {
				return 0, fmt.Errorf("net/netstat has no %s", name)
			}
			v, err := strconv.ParseUint(string(fields[i]), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("net/netstat: %s: %w", name, err)
			}
			return v, nil
		}
	}
	return 0, fmt.Errorf("net/netstat has no %s", group)
}
