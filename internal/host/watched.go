package host

import (
	"slices"
	"strings"
)

// LeftLink is an interface that is not watched, and why in words.
type LeftLink struct {
	Link Link
	Why  string
}

// Watched decides which interfaces to watch. Without names: every one that is up
// and holds an address of ours, but not loopback, nor a port of a bridge or bond
// (the frame is seen again on the master), nor the host end of a container's
// veth. loopback adds the loopback to them. With names: exactly those; missing
// are the names that no interface has.
func Watched(s *Snapshot, named []string, loopback bool) (watch []Link, left []LeftLink, missing []string) {
	for _, l := range s.Links {
		why := ""
		switch {
		case len(named) > 0 && !slices.Contains(named, l.Name):
			why = "it is not named"
		case !l.Up:
			why = "it is down"
		case len(named) > 0: // whoever names it wants it
		case l.Loopback && loopback:
		case l.Loopback:
			why = "it is loopback"
		case l.PortOf != "":
			why = "it is a port of " + s.nameOf(l.Master) + " (" + l.PortOf + ")"
		case !l.HasAddress:
			why = "it holds no address of ours"
		case l.ContainerVeth:
			why = "it is the host end of a container's " + l.Kind
		}
		if why == "" {
			watch = append(watch, l)
		} else {
			left = append(left, LeftLink{l, why})
		}
	}
	for _, n := range named {
		if !slices.ContainsFunc(s.Links, func(l Link) bool { return l.Name == n }) {
			missing = append(missing, n)
		}
	}
	return watch, left, missing
}

func (s *Snapshot) nameOf(index int32) string {
	for i := range s.Links {
		if s.Links[i].Index == index {
			return s.Links[i].Name
		}
	}
	return "another device"
}

// isContainerEnd tells the host's end of a container's veth from the veth that
// is a container's (or a test namespace's) own way out. From inside, both have
// their peer in another namespace and nothing says which namespace is the inner
// one. What tells them apart is use:
//
//   - A default route leaves by it: it is our way out, whatever its name.
//   - It is named as container runtimes name host ends: it is one.
//   - All its addresses are of a single host (/32, /128) or link-local, as
//     routed containers have it (169.254.1.1 and the like): it is one.
//   - Else it joins us to a subnet: ours.
//
// Who disagrees names the interface in INTERFACES.
func isContainerEnd(l *rtLink, addrs []rtAddr) bool {
	if !l.pair() || !l.peerElsewhere || l.DefaultRoute {
		return false
	}
	if runtimeName(l.Name) {
		return true
	}
	subnet := func(a rtAddr) bool {
		return a.index == l.Index && !a.addr.IsSingleIP() && !a.addr.Addr().IsLinkLocalUnicast()
	}
	return l.HasAddress && !slices.ContainsFunc(addrs, subnet)
}

// runtimeName reports whether a container runtime gives such names to host ends:
// Docker, the CNI plug-ins and LXD "veth" and 7 or more hexadecimal digits,
// Calico cali..., Cilium lxc..., Weave vethwe..., systemd-nspawn ve-... and
// vb-..., the clouds' CNIs eni, azv and gke and digits.
func runtimeName(name string) bool {
	for _, prefix := range []string{"cali", "lxc", "vethwe", "ve-", "vb-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	for _, prefix := range []string{"veth", "eni", "azv", "gke"} {
		digits, ok := strings.CutPrefix(name, prefix)
		if ok && len(digits) >= 7 && strings.Trim(digits, "0123456789abcdef") == "" {
			return true
		}
	}
	return false
}
