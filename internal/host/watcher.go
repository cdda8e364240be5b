package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	settleTime = 50 * time.Millisecond // changes come in bunches: wait for the rest
	pollTime   = 5 * time.Second       // how often the files are looked at
)

// Watcher keeps a Snapshot up to date: links, addresses and routes as the
// kernel announces them, files as their times change.
type Watcher struct {
	files     fileSystem
	ask       *conn    // for lists
	news      *os.File // a netlink socket subscribed to changes
	portRange *os.File
	ownLogin  []netip.Addr
	stamp     uint64        // of the files
	cost      time.Duration // of the last refresh: long where routes are a million

	snapshot atomic.Pointer[Snapshot]
	changed  chan struct{}
	failed   atomic.Uint64
}

// NewWatcher subscribes to changes and takes the first snapshot.
func NewWatcher() (*Watcher, error) { return newWatcher(fileSystem{"/"}) }

func newWatcher(files fileSystem) (*Watcher, error) {
	w := &Watcher{files: files, changed: make(chan struct{}, 1), ownLogin: files.ownLogin()}
	var err error
	// The open file stays with this thread's namespace, the path would not.
	if w.portRange, err = os.Open("/proc/sys/net/ipv4/ip_local_port_range"); err != nil {
		return nil, fmt.Errorf("host facts: %w", err)
	}
	if w.news, err = subscribe(); err != nil {
		return nil, errors.Join(fmt.Errorf("host facts: %w", err), w.portRange.Close())
	}
	if w.ask, err = dial(unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(fmt.Errorf("host facts: %w", err), w.portRange.Close(), w.news.Close())
	}
	if err := w.refresh(); err != nil {
		return nil, errors.Join(fmt.Errorf("host facts: %w", err), w.Close())
	}
	return w, nil
}

// subscribe opens a netlink socket that hears of changes. It is non-blocking
// and in the care of the Go poller, so that reads have deadlines.
func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	var groups uint32
	for _, g := range []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF} {
		groups |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(fmt.Errorf("netlink subscription: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

// Snapshot is the newest view. It is safe for concurrent use.
func (w *Watcher) Snapshot() *Snapshot { return w.snapshot.Load() }

// Changed has a signal after each change of the Snapshot; several may be one.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Failures counts attempts to take a snapshot that failed; the last good one
// stood meanwhile.
func (w *Watcher) Failures() uint64 { return w.failed.Load() }

// Close frees the sockets. Run must have returned.
func (w *Watcher) Close() error {
	return errors.Join(w.ask.close(), w.news.Close(), w.portRange.Close())
}

// Run follows changes until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.news.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	buf := make([]byte, receiveSize)
	poll := time.Now().Add(pollTime)
	var due time.Time // of a refresh; zero: nothing to do
	for {
		next := poll
		if !due.IsZero() && due.Before(next) {
			next = due
		}
		if err := w.news.SetReadDeadline(next); err != nil {
			return fmt.Errorf("host facts: %w", err)
		}
		if ctx.Err() != nil { // after setting it: the other order could sleep through
			return nil
		}
		n, err := w.news.Read(buf)
		now := time.Now()
		switch {
		case err == nil && !concerns(buf[:n]):
		case err == nil, errors.Is(err, unix.ENOBUFS): // ENOBUFS: more than the socket holds, so list again
			if due.IsZero() {
				due = now.Add(max(settleTime, 20*w.cost)) // at most a twentieth of a CPU
			}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("host facts: %w", err)
		}
		if !now.Before(poll) {
			poll = now.Add(pollTime)
			if due.IsZero() && w.filesChanged() {
				due = now
			}
		}
		if !due.IsZero() && !now.Before(due) {
			due = time.Time{}
			if w.refresh() != nil {
				w.failed.Add(1)
				due = time.Now().Add(pollTime)
			}
		}
	}
}

func (w *Watcher) filesChanged() bool {
	first, last, err := localPortRange(w.portRange)
	s := w.Snapshot()
	return w.files.stamp(resolvConf, behindStub, timeServers, loginRecords) != w.stamp ||
		err == nil && (first != s.EphemeralFirst || last != s.EphemeralLast)
}

// concerns reports whether netlink messages tell of something that a Snapshot
// holds. Most changes of routes do not.
func concerns(b []byte) bool {
	for len(b) > 0 {
		var m message
		if m, b = nextMessage(b); m.body == nil {
			return true // torn: list again
		}
		switch m.kind {
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			if isDefault(m.body) {
				return true
			}
		case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWNETCONF:
			return true
		}
	}
	return false
}

// refresh takes a new snapshot and puts it in place of the old one if it says
// something else.
func (w *Watcher) refresh() error {
	start := time.Now()
	facts, err := listRoutes(w.ask)
	if err != nil {
		return err
	}
	s := facts.snapshot()
	if s.EphemeralFirst, s.EphemeralLast, err = localPortRange(w.portRange); err != nil {
		return err
	}
	w.stamp = w.files.stamp(resolvConf, behindStub, timeServers, loginRecords)
	s.Resolvers = w.files.resolvers(s.IsOwn)
	s.TimeServers = sorted(w.files.addresses(timeServers))
	s.Logins = w.ownLogin
	for _, a := range w.files.logins() {
		if !slices.Contains(s.Logins, a) {
			s.Logins = append(s.Logins[:len(s.Logins):len(s.Logins)], a)
		}
	}
	w.cost = time.Since(start)
	old := w.snapshot.Load()
	if old != nil && reflect.DeepEqual(old, s) {
		return nil
	}
	w.snapshot.Store(s)
	if old == nil {
		return nil
	}
	select {
	case w.changed <- struct{}{}:
	default: // a signal is waiting already
	}
	return nil
}
