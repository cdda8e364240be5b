package bpf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Peers is a map, in the kernel, of the remote ends of TCP connections to ports
// that are served here. The kernel enters whoever completes a handshake, before
// the service is told of the connection; user space enters those connected
// before, and takes out whom it forgets. Loopback and connections to trap
// sockets of ours count for nothing. All methods but Run and Close are safe for
// concurrent use.
//
// A handshake that TCP Fast Open has shortened enters nobody: user space finds
// the connection in the list of sockets.
type Peers struct {
	spec    *ebpf.CollectionSpec // until Follow, for it is large
	peers   *ebpf.Map
	objects peersObjects // what Follow has loaded
	link    link.Link
	opened  *ringbuf.Reader
	scratch ringbuf.Record
	partial bool
	full    atomic.Uint64 // addresses that Add found no room for
}

// PeerStats are counters of Peers.
type PeerStats struct {
	Full   uint64 // no room: not entered
	Untold uint64 // entered, but not handed out by Run, which fell behind
}

// NewPeers makes the map, for user space to fill; with Follow the kernel does, too.
func NewPeers() (*Peers, error) {
	spec, err := loadPeers()
	if err != nil {
		return nil, err
	}
	return newPeers(spec)
}

func newPeers(spec *ebpf.CollectionSpec) (*Peers, error) {
	m, err := ebpf.NewMap(spec.Maps[peersMapPeers])
	if err != nil {
		return nil, fmt.Errorf("map of peers: %w", explain(err))
	}
	return &Peers{spec: spec, peers: m}, nil
}

// Follow attaches the program that enters those who connect to the network namespace
// of the calling thread. It is called once, before the methods that it is for: Run,
// Partial and Stats; others may be called meanwhile. It needs CAP_BPF, CAP_NET_ADMIN,
// a cgroup2 file system and Linux 5.15; the methods need CAP_BPF at the most. Errors
// say what is missing as those of OpenSteering do, and leave the map as it was.
func (p *Peers) Follow() error {
	err := p.follow()
	p.spec = nil
	if err != nil {
		err = errors.Join(explain(err), p.end())
		p.objects, p.opened, p.link, p.partial = peersObjects{}, nil, nil, false
	}
	return err
}

func (p *Peers) follow() error {
	cookie, err := spaceCookie()
	if err != nil {
		return err
	}
	dir, whole, err := cgroupRoot()
	if err != nil {
		return err
	}
	defer dir.Close()
	p.partial = !whole
	if err := p.spec.Variables[peersVarNetnsCookie].Set(cookie); err != nil {
		return fmt.Errorf("set the namespace: %w", err)
	}
	options := &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{peersMapPeers: p.peers}}
	if err := p.spec.LoadAndAssign(&p.objects, options); err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	if p.opened, err = ringbuf.NewReader(p.objects.Opened); err != nil {
		return fmt.Errorf("ring of new peers: %w", err)
	}
	return p.attach(dir)
}

// attach runs the program below cgroup. It is not pinned: it goes with the process.
func (p *Peers) attach(cgroup *os.File) error {
	l, err := link.AttachRawLink(link.RawLinkOptions{
		Target: int(cgroup.Fd()), Program: p.objects.Established, Attach: ebpf.AttachCGroupSockOps,
	})
	if err != nil {
		return fmt.Errorf("attach to %s: %w", cgroup.Name(), err)
	}
	p.link = l
	return nil
}

// Map is for programs that ask who is a peer. The key is the address in 16
// bytes, IPv4 as ::ffff:a.b.c.d; being there is all that counts.
func (p *Peers) Map() *ebpf.Map { return p.peers }

// Add enters addresses. What finds no room is counted and is no error.
func (p *Peers) Add(addrs []netip.Addr) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	entered := uint64(now.Nano())
	for _, a := range addrs {
		switch err := p.peers.Update(a.As16(), entered, ebpf.UpdateNoExist); {
		case err == nil || errors.Is(err, ebpf.ErrKeyExist):
		case errors.Is(err, unix.E2BIG):
			p.full.Add(1)
		default:
			return fmt.Errorf("add peer %v: %w", a, err)
		}
	}
	return nil
}

// Remove takes addresses out; those that are not there are no error.
func (p *Peers) Remove(addrs []netip.Addr) error {
	for _, a := range addrs {
		if err := p.peers.Delete(a.As16()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove peer %v: %w", a, err)
		}
	}
	return nil
}

// Run hands out each address that the kernel has entered, in order, with the end of
// ours that it connected to, until ctx ends. Addresses from Add are not among them.
func (p *Peers) Run(ctx context.Context, entered func(who netip.Addr, local netip.AddrPort)) error {
	if p.opened == nil {
		<-ctx.Done()
		return nil
	}
	defer context.AfterFunc(ctx, p.interrupt)()
	for {
		switch err := p.next(entered); {
		case errors.Is(err, ringbuf.ErrFlushed) && ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, ringbuf.ErrFlushed):
			return fmt.Errorf("ring of new peers: %w", err)
		}
	}
}

// interrupt makes next return once it has handed out what there is. It fails
// only when the ring is closed, and then next fails as well.
func (p *Peers) interrupt() { _ = p.opened.Flush() }

func (p *Peers) next(entered func(netip.Addr, netip.AddrPort)) error {
	if err := p.opened.ReadInto(&p.scratch); err != nil {
		return err
	}
	if b := p.scratch.RawSample; len(b) >= 36 { // struct opening
		local, port := netip.AddrFrom16([16]byte(b[16:])).Unmap(), uint16(binary.NativeEndian.Uint32(b[32:]))
		entered(netip.AddrFrom16([16]byte(b)).Unmap(), netip.AddrPortFrom(local, port))
	}
	return nil
}

// Partial reports that only processes below our own cgroup are seen serving
// ports, as in a container that shares the network of its host.
func (p *Peers) Partial() bool { return p.partial }

// Stats gives the counters.
func (p *Peers) Stats() PeerStats {
	return PeerStats{
		Full:   p.full.Load() + counted(p.objects.PeersFull),
		Untold: counted(p.objects.PeersUntold),
	}
}

// counted reads a number that a program counts; 0 where there is no program.
func counted(v *ebpf.Variable) (n uint64) {
	if v == nil || v.Get(&n) != nil {
		return 0
	}
	return n
}

// Close ends it; programs that use the map keep it. It is harmless to call it
// twice.
func (p *Peers) Close() error { return errors.Join(p.end(), p.peers.Close()) }

// end ends what Follow has begun.
func (p *Peers) end() error {
	var errs []error
	if p.link != nil {
		errs = append(errs, p.link.Close())
	}
	if p.opened != nil {
		errs = append(errs, p.opened.Close())
	}
	return errors.Join(append(errs, p.objects.Close())...)
}

// spaceCookie is the kernel's name for the network namespace of the calling
// thread.
func spaceCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("network namespace cookie: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("network namespace cookie: %w", err)
	}
	return cookie, nil
}
