package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/config"
	"portsentry/internal/host"
)

// Ways of watching an interface, in the words of status.
const (
	byXDP      = "XDP"
	byGeneric  = "XDP, generic"
	byAFPacket = "AF_PACKET"
	byBoth     = "AF_PACKET, XDP drops"
)

// pointAt has the links watched, and says how: by the XDP program where it can be,
// by the packet ring where it cannot. Whether they are watched or not, the program
// keeps the banned out on all of them, if it is wanted for that.
func (d *daemon) pointAt(c *config.Config, links, all []host.Link) (map[int32]watched, error) {
	how := make(map[int32]watched, len(links))
	index := make(map[int32]bool, len(links))
	for _, l := range links {
		how[l.Index], index[l.Index] = watched{byAFPacket, ""}, true
	}
	d.facts.watched.Store(&index)
	var ring []int32
	for i, w := range d.useXDP(c, all, len(links) > 0) {
		how[i] = w
	}
	for _, l := range links {
		if !d.sensing(c) || how[l.Index].how == byAFPacket {
			by := byAFPacket
			if how[l.Index].how != byAFPacket {
				by = byBoth
			}
			how[l.Index] = watched{by, how[l.Index].why}
			ring = append(ring, l.Index)
		}
	}
	if err := d.useRing(c, ring); err != nil {
		return nil, err
	}
	d.endXDP(c)
	return how, nil
}

// useRing points the packet ring at the links, and opens it when it is wanted for
// the first time.
func (d *daemon) useRing(c *config.Config, links []int32) error {
	p := d.packets.Load()
	if p == nil && len(links) == 0 {
		return nil
	}
	if p == nil {
		if err := d.openRing(c); err != nil {
			return err
		}
		p = d.packets.Load()
	}
	return p.ring.SetInterfaces(links)
}

// endXDP lets the program read no more, now that the ring does, where CAPTURE has
// changed, and takes it off where it keeps nobody out either. For a moment both
// read: a scan that is seen twice is better than one that is not seen.
func (d *daemon) endXDP(c *config.Config) {
	s := d.sensor.Load()
	if s == nil {
		return
	}
	senses := d.sensing(c)
	var errs []error
	if d.reads.Swap(senses) && !senses {
		errs = append(errs, d.setSensor(c))
	}
	if !senses && !d.dropping(c) && !s.keepsOut() {
		for _, err := range s.source.SetInterfaces(nil, false) {
			errs = append(errs, err)
		}
	}
	said := ""
	if err := errors.Join(errs...); err != nil {
		said = fmt.Sprintf("the XDP program goes on although it need not: %v", err)
	}
	d.problems.set("end xdp", said)
}

// useXDP runs the XDP program on the links, where it is wanted and can be. read:
// somebody else reads the packets of those where it cannot.
func (d *daemon) useXDP(c *config.Config, links []host.Link, read bool) map[int32]watched {
	s := d.sensor.Load()
	if s == nil || !d.sensing(c) && !d.dropping(c) {
		d.problems.set("without xdp", "")
		return nil
	}
	how := make(map[int32]watched, len(links))
	var ethernet []int32
	for _, l := range links {
		switch {
		case l.HardwareType != unix.ARPHRD_ETHER:
			how[l.Index] = watched{byAFPacket, "no Ethernet header"}
			continue
		case l.Kind == "bond": // the program would run on its ports, and look for sockets there
			how[l.Index] = watched{byAFPacket, "a bond"}
			continue
		}
		ethernet = append(ethernet, l.Index)
	}
	failed := s.source.SetInterfaces(ethernet, c.Capture == config.CaptureXDP)
	attached := s.Attached()
	for _, i := range ethernet {
		generic, is := attached[i]
		switch {
		case !is && failed[i] != nil:
			how[i] = watched{byAFPacket, failed[i].Error()}
		case !is:
			how[i] = watched{byAFPacket, "it went away"}
		case generic:
			how[i] = watched{byGeneric, bpf.ErrNoNative.Error()}
		default:
			how[i] = watched{byXDP, ""}
		}
	}
	d.sayWithout(c, links, how, failed, read)
	return how
}

// sayWithout says on which interfaces the XDP program does not run although
// somebody counts on it, and why, and on which it cannot be ended.
func (d *daemon) sayWithout(c *config.Config, links []host.Link, how map[int32]watched, failed map[int32]error, read bool) {
	alone := d.dropping(c) && !d.tableBans(c)
	counted := alone || c.Capture == config.CaptureXDP || c.VerifySource
	var said []string
	for _, l := range links {
		err := failed[l.Index]
		expected := err == nil || errors.Is(err, bpf.ErrNoNative)
		if h := how[l.Index]; h.how == byAFPacket && (counted || !expected) {
			said = append(said, fmt.Sprintf("%s: our XDP program does not run there (%s): %s", l.Name, h.why, d.without(c, alone, read)))
		}
	}
	for i, err := range failed {
		if _, wanted := how[i]; !wanted {
			said = append(said, fmt.Sprintf("interface %d: %v", i, err))
		}
	}
	slices.Sort(said)
	d.problems.set("without xdp", strings.Join(slices.Compact(said), "\n"))
}

// without is what becomes of an interface without the XDP program. alone: nothing
// else keeps the banned out. read: its packets are read.
func (d *daemon) without(c *config.Config, alone, read bool) string {
	var said []string
	if read {
		said = append(said, "AF_PACKET reads its packets")
	}
	if read && c.VerifySource && d.sensing(c) {
		said = append(said, "nobody is challenged (VERIFY_SOURCE)")
	}
	switch {
	case alone && !d.wants(c, config.MethodNftables):
		said = append(said, `nobody is kept out: add nftables to BLOCK_METHOD, or use "auto"`)
	case alone:
		said = append(said, "nobody is kept out")
	case !read:
		said = append(said, "nftables alone keeps the banned out")
	}
	return strings.Join(said, ", and ")
}
