package pktgen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// runNetns is where iproute2 looks for named namespaces.
const runNetns = "/run/netns"

// maxNames bounds the search for a free namespace name.
const maxNames = 1000

// errNeedsRoot says what the kernel's EPERM means here.
var errNeedsRoot = errors.New("network namespaces need CAP_SYS_ADMIN and CAP_NET_ADMIN; run as root")

// Net is a set of network namespaces joined by veth pairs. Close removes all of
// it. The methods of Net, NS and End are not for concurrent use, except NS.Do.
type Net struct{ spaces []*NS }

// NewNet gives an empty Net, or an error when this process may not make
// namespaces.
func NewNet() (*Net, error) {
	n := &Net{}
	// Finding out now gives the hint before anything was made.
	if err := inFreshThread(func() error { return unix.Unshare(unix.CLONE_NEWNET) }); err != nil {
		return nil, fmt.Errorf("pktgen: new network namespace: %w (%w)", err, errNeedsRoot)
	}
	return n, nil
}

// NS is one network namespace, bind-mounted under its name, so that
// `ip netns exec NAME` finds it.
type NS struct {
	name   string
	ns     netns.NsHandle
	handle *netlink.Handle
	links  int // for the names eth0, eth1, ...
}

// NewNS makes a namespace with its loopback up, forwarding off, no reverse-path
// filter and no duplicate address detection.
func (n *Net) NewNS() (*NS, error) {
	ns, err := newNS()
	if err != nil {
		return nil, fmt.Errorf("pktgen: new network namespace: %w", err)
	}
	n.spaces = append(n.spaces, ns)
	if ns.handle, err = netlink.NewHandleAt(ns.ns, unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("pktgen: netlink in %s: %w", ns.name, err)
	}
	if err := ns.up("lo"); err != nil {
		return nil, err
	}
	for _, s := range [][2]string{
		{"net.ipv4.conf.all.rp_filter", "0"},
		{"net.ipv4.conf.default.rp_filter", "0"},
		{"net.ipv6.conf.all.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_ra", "0"},
		{"net.ipv6.conf.default.router_solicitations", "0"},
	} {
		// A kernel without IPv6 has no such files.
		if err := ns.Sysctl(s[0], s[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return ns, nil
}

// newNS makes and mounts a namespace under the first free name ps-<pid>-<n>.
func newNS() (*NS, error) {
	for i := range maxNames {
		ns := &NS{name: "ps-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(i)}
		if _, err := os.Lstat(ns.Path()); err == nil {
			continue
		}
		err := inFreshThread(func() (err error) {
			ns.ns, err = netns.NewNamed(ns.name)
			return err
		})
		if err == nil {
			return ns, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			os.Remove(ns.Path()) // what NewNamed leaves when the mount fails
			return nil, err
		}
	}
	return nil, fmt.Errorf("%d namespaces of this process exist already", maxNames)
}

// inFreshThread runs f on a thread that is thrown away afterwards, whatever f
// did to its namespaces. It is never the main thread: that one cannot be thrown
// away, and /proc/self and /proc/net show its namespace.
func inFreshThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			result <- inFreshThread(f) // cannot land here while we hold this thread
			runtime.UnlockOSThread()
			return
		}
		result <- f() // never unlocked: the thread ends with the goroutine
	}()
	return <-result
}

// Close removes the namespaces and with them every link, address and rule in
// them. Processes that still run inside keep theirs alive until they end.
func (n *Net) Close() error {
	var errs []error
	for _, ns := range n.spaces {
		if ns.handle != nil {
			ns.handle.Close()
		}
		errs = append(errs, ns.ns.Close(), netns.DeleteNamed(ns.name))
	}
	n.spaces = nil
	return errors.Join(errs...)
}

// Name is the name for `ip netns exec`.
func (ns *NS) Name() string { return ns.name }

// Path is the file that setns(2) takes.
func (ns *NS) Path() string { return filepath.Join(runNetns, ns.name) }

// Do runs f on a thread of its own inside the namespace and returns what f
// returns. Sockets that f opens stay in the namespace for their whole life, and
// processes that f starts live in it; goroutines that f starts do not, nor does
// a dial by host name (it starts goroutines). Because f runs on another
// goroutine it must return its errors rather than call t.Fatal. /sys and
// /proc/net stay those of the machine; /proc/sys/net and /proc/thread-self/net
// are the namespace's.
func (ns *NS) Do(f func() error) error {
	return inFreshThread(func() error {
		if err := netns.Set(ns.ns); err != nil {
			return fmt.Errorf("pktgen: enter %s: %w", ns.name, err)
		}
		return f()
	})
}

// Sysctl sets one key, written with dots, for example net.ipv4.ip_forward.
func (ns *NS) Sysctl(key, value string) error {
	file := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
	err := ns.Do(func() error { return os.WriteFile(file, []byte(value), 0) })
	if err != nil {
		return fmt.Errorf("pktgen: sysctl %s=%s: %w", key, value, err)
	}
	return nil
}

// Route sends dst by way of via.
func (ns *NS) Route(dst netip.Prefix, via netip.Addr) error {
	dst = dst.Masked()
	bits := dst.Addr().BitLen()
	err := ns.handle.RouteAdd(&netlink.Route{
		Dst: &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), bits)},
		Gw:  via.AsSlice(),
	})
	if err != nil {
		return fmt.Errorf("pktgen: route %v via %v: %w", dst, via, err)
	}
	return nil
}

func (ns *NS) up(name string) error {
	link, err := ns.handle.LinkByName(name)
	if err == nil {
		err = ns.handle.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("pktgen: link %s up in %s: %w", name, ns.name, err)
	}
	return nil
}
