package app

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"portsentry/internal/judge"
	"portsentry/internal/view"
)

// The widest ranges that are banned without --force: /8 is what one registry was once
// given, /32 what one provider is given now.
const (
	widest4 = 8
	widest6 = 32
)

// mayBan says why o is not carried out: it would lock out somebody who is needed, or
// who asks.
func (d *daemon) mayBan(o *view.Order) error {
	p := o.Prefix
	snapshot, trust := d.facts.watcher.Snapshot(), d.facts.latest.Load()
	for own := range snapshot.Own {
		if p.Contains(own.WithZone("")) {
			return refuseBan(p, "an address of this host", "what this host sends to itself would get lost; it is refused with --force too")
		}
	}
	for _, loopback := range []string{"127.0.0.0/8", "::1/128"} {
		if p.Overlaps(netip.MustParsePrefix(loopback)) {
			return refuseBan(p, "the loopback address of this host", "it is refused with --force too")
		}
	}
	if o.Force {
		return nil
	}
	const all = "--force bans it all the same"
	for _, login := range []struct {
		who   string
		addrs []netip.Addr
	}{{"you are", o.From}, {"somebody is", snapshot.Logins}} {
		for _, a := range login.addrs {
			if a = a.Unmap().WithZone(""); p.Contains(a) {
				return view.Refuse(http.StatusConflict, fmt.Sprintf("%s is not banned: %s logged in from %s", written(p), login.who, a),
					all+"; with --confirm-within 5m as well it is lifted by itself if nobody can confirm")
			}
		}
	}
	if spared := trust.Within(p); spared != judge.NotSpared {
		return refuseBan(p, trust.Reason(p, spared), all+": nothing from there would get in")
	}
	if p.Addr().Is4() && p.Bits() < widest4 || p.Addr().Is6() && p.Bits() < widest6 {
		return view.Refuse(http.StatusConflict, fmt.Sprintf("%s is not banned: it is wider than /%d (IPv4) or /%d (IPv6)", p, widest4, widest6), all)
	}
	if d.decider.freshen(); d.peers.Any(p) {
		return refuseBan(p, "connected to a service of this host, or was within a day", all+", and cuts the connection")
	}
	return nil
}

func refuseBan(p netip.Prefix, what, hint string) error {
	subject := "it is "
	switch {
	case p.IsSingleIP():
	case strings.HasPrefix(what, "a"), strings.HasPrefix(what, "the "):
		subject = "it holds "
	default:
		subject = "somebody in it is "
	}
	return view.Refuse(http.StatusConflict, written(p)+" is not banned: "+subject+what, hint)
}

// mayUnban says why somebody may not lift what keeps p out: the group lifts no ranges.
func (d *daemon) mayUnban(who view.Caller, p netip.Prefix) error {
	if who.Root {
		return nil
	}
	for bits := p.Bits() - 1; bits >= 0; bits-- {
		wide := netip.PrefixFrom(p.Addr(), bits).Masked()
		if _, banned := d.responder.Of(wide); banned && !view.Single(wide) {
			return view.Refuse(http.StatusForbidden, fmt.Sprintf("%s lies in %s, which is banned, and ranges are root's alone", written(p), wide), "try sudo")
		}
	}
	return nil
}
