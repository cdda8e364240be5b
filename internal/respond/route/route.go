// Package route bans with blackhole routes. Bans go in; what this host would
// answer the banned is dropped on its way out. Their packets still arrive, so a
// route stops no flood, and it cannot tell an existing connection from a new
// one: it does what KILL_ROUTE with `ip route add blackhole` has done since 1998.
//
// A route has no time of its own. (Linux keeps RTA_EXPIRES for IPv6 only, and
// not for blackholes.) It does have a metric, 32 bits that are ours to choose:
// the ban's end in seconds of Unix time. So the kernel remembers when a ban has
// to end, and a later run takes it out even if this one died.
//
//	blackhole 203.0.113.9 proto 112 metric 1795240727
//
// Such a metric is worse than any that people, DHCP or routing daemons choose:
// who has a route to exactly the banned prefix keeps it. A subnet that this host
// is in, above all, is never taken from it.
package route

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// Protocol is rtm_protocol of our routes (rtnetlink(7)): by it they are told
// from everybody else's. Nobody has claimed the number.
const Protocol = 0x70

// answerTime bounds how long the kernel may take for one answer.
const answerTime = 2 * time.Second

// ErrNotUsed says that the kernel would not use the route: the prefix holds an
// address of this host, or there is a better route to it.
var ErrNotUsed = errors.New("the kernel prefers another route")

// ErrGateway says that the prefix holds the way to everybody else.
var ErrGateway = errors.New("the default gateway is never banned")

// Routes are the blackhole routes of this host. Methods may be called from any
// goroutine.
type Routes struct {
	mu   sync.Mutex // one request at a time; guards all below
	conn *netlink.Handle
	ours map[netip.Prefix]uint32 // metrics of the routes there are
}

// Open takes over the routes of an earlier run. It needs CAP_NET_ADMIN, and
// works in the network namespace of the calling thread.
func Open() (*Routes, error) {
	conn, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, hint(err)
	}
	r := &Routes{conn: conn, ours: make(map[netip.Prefix]uint32)}
	err = conn.SetSocketTimeout(answerTime)
	if err == nil {
		err = r.permitted()
	}
	if err == nil {
		err = r.read(context.Background())
	}
	if err != nil {
		conn.Close()
		return nil, hint(err)
	}
	return r, nil
}

// permitted asks the kernel to delete a route that does not exist: to an address
// of the documentation (RFC 5737), ours, and for a ban that ended in 1970.
func (r *Routes) permitted() error {
	err := r.conn.RouteDel(blackhole(netip.MustParsePrefix("192.0.2.0/32"), 1))
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// Close gives the socket back. The routes stay: a later run takes them over.
func (r *Routes) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn.Close()
	return nil
}

// Name is the method's name in BLOCK_METHOD.
func (r *Routes) Name() string { return string(config.MethodRoute) }

// Enforces is for respond.Method.
func (r *Routes) Enforces() bool { return true }

// Ends is for respond.Method: somebody has to take a route out.
func (r *Routes) Ends() bool { return false }

// Stops is for respond.Stopper.
func (r *Routes) Stops(*respond.Ban) string { return "our answers" }

// Takes is for respond.Method. A route is for all protocols and for existing
// connections too, so it needs what earns at least the soft ban, and every ban
// must have an end. Addresses, networks and ranges of the public space are asked for;
// anything else, a default route above all, is a mistake of ours that must not cut this
// host off.
func (r *Routes) Takes(b *respond.Ban) bool {
	a := b.Prefix.Addr()
	return b.Scope == judge.AllProtocols && b.Strength >= judge.Soft && !b.Until.IsZero() &&
		b.Prefix.Bits() > 0 && !a.Is4In6() && a.IsGlobalUnicast() && a.Zone() == ""
}

// BanAll is for respond.Method. Routes of before go when the new ones are there.
func (r *Routes) BanAll(ctx context.Context, bans []respond.Ban) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	gateways := r.gateways()
	var added []*netlink.Route
	for i := range bans {
		var rt *netlink.Route
		err := ErrGateway
		if !slices.ContainsFunc(gateways, bans[i].Prefix.Contains) {
			rt, err = r.add(ctx, &bans[i])
		}
		if rt != nil {
			added = append(added, rt)
		}
		if err != nil {
			err = fmt.Errorf("route: %v: %w", bans[i].Prefix, err)
			for _, rt := range slices.Backward(added) {
				err = errors.Join(err, r.conn.RouteDel(rt))
			}
			return err
		}
	}
	for i := range bans {
		p, m := bans[i].Prefix.Masked(), metric(bans[i].Until)
		if old, ok := r.ours[p]; ok && old != m {
			// The new ban is in force whether the old route goes or not; one
			// that stays goes with Unban.
			r.conn.RouteDel(blackhole(p, old))
		}
		r.ours[p] = m
	}
	return nil
}

// add puts one route in force. The route is nil if it was there before.
func (r *Routes) add(ctx context.Context, b *respond.Ban) (*netlink.Route, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rt := blackhole(b.Prefix.Masked(), metric(b.Until))
	err := r.conn.RouteAdd(rt)
	if errors.Is(err, unix.EEXIST) {
		rt, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	// The kernel says EINVAL where a blackhole is what it would use.
	if _, err = r.conn.RouteGet(b.Prefix.Masked().Addr().AsSlice()); errors.Is(err, unix.EINVAL) {
		return rt, nil
	}
	if err == nil {
		err = ErrNotUsed
	}
	return rt, err
}

// Holds is for respond.Checker: the kernel is asked for the way to each, the first
// address of a range.
func (r *Routes) Holds(ctx context.Context, bans []respond.Ban) (missing []int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range bans {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		_, err := r.conn.RouteGet(bans[i].Prefix.Masked().Addr().AsSlice())
		switch {
		case errors.Is(err, unix.EINVAL): // a blackhole: see add
		case err == nil, errors.Is(err, unix.ENETUNREACH):
			missing = append(missing, i)
		default:
			return nil, fmt.Errorf("route: %v: %w", bans[i].Prefix, err)
		}
	}
	return missing, nil
}

// gateways are where packets for the rest of the world go, as the kernel routes
// addresses of the documentation (RFC 5737, RFC 3849). Whom to spare is decided
// before a ban comes here, with the gateways of all routes; this is the last
// defence against a mistake there, at the price of two questions.
func (r *Routes) gateways() []netip.Addr {
	var out []netip.Addr
	for _, outside := range []string{"192.0.2.1", "2001:db8::1"} {
		routes, err := r.conn.RouteGet(net.ParseIP(outside))
		if err != nil || len(routes) == 0 {
			continue
		}
		if gw, ok := netip.AddrFromSlice(routes[0].Gw); ok {
			out = append(out, gw.Unmap())
		}
	}
	return out
}

// Unban is for respond.Method: whatever route of ours to the prefix there is
// goes, and nobody else's.
func (r *Routes) Unban(ctx context.Context, b respond.Ban) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := b.Prefix.Masked()
	rt := blackhole(p, 0) // any metric
	for range 8 {         // one, or two after a crash
		err := ctx.Err()
		if err == nil {
			err = r.conn.RouteDel(rt)
		}
		if errors.Is(err, unix.ESRCH) {
			break
		}
		if err != nil {
			return fmt.Errorf("route: %v: %w", p, err)
		}
	}
	delete(r.ours, p)
	return nil
}

// Existing gives the bans that the kernel holds, with Prefix, Scope, Strength
// and Until, which may have passed. They may come from an earlier run. What is
// stronger than soft is not known any more, nor does it make a difference.
func (r *Routes) Existing(ctx context.Context) ([]respond.Ban, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.read(ctx); err != nil {
		return nil, hint(err)
	}
	bans := make([]respond.Ban, 0, len(r.ours))
	for p, m := range r.ours {
		bans = append(bans, respond.Ban{
			Prefix: p, Scope: judge.AllProtocols, Strength: judge.Soft, Until: time.Unix(int64(m), 0),
		})
	}
	return bans, nil
}

// read asks the kernel for our routes. Of two to one prefix, which a crash can
// leave, the one that ends later counts; Unban takes both.
func (r *Routes) read(ctx context.Context) error {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: Protocol, Type: unix.RTN_BLACKHOLE}
	clear(r.ours)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		var err error
		for range 3 { // a change meanwhile interrupts the list
			if err = ctx.Err(); err != nil {
				return err
			}
			err = r.conn.RouteListFilteredIter(family, filter,
				netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TYPE, func(rt netlink.Route) bool {
					if p, ok := prefixOf(rt.Dst); ok {
						r.ours[p] = max(r.ours[p], uint32(rt.Priority))
					}
					return len(r.ours) < respond.MaxBans
				})
			if !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
		}
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
	return nil
}

// blackhole is the route that bans p until metric.
func blackhole(p netip.Prefix, metric uint32) *netlink.Route {
	return &netlink.Route{
		Dst:   &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		Table: unix.RT_TABLE_MAIN, Type: unix.RTN_BLACKHOLE, Protocol: Protocol, Priority: int(metric),
	}
}

// metric is t in seconds of Unix time, the next full one.
func metric(t time.Time) uint32 {
	return uint32(min(max(t.Add(time.Second-1).Unix(), 1), math.MaxUint32))
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	p := netip.PrefixFrom(a.Unmap(), bits)
	return p, ok && p.IsValid()
}

// hint adds what to do about an error of starting.
func hint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("route: %w (run as root or with CAP_NET_ADMIN)", err)
	}
	return fmt.Errorf("route: %w", err)
}
