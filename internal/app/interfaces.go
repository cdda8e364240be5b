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
)

// pointAt has the links watched, and says how: by the XDP program where it can be,
// by the packet ring where it cannot. On all of them, watched or not, the program
// keeps the banned out, if it is wanted for that.
func (d *daemon) pointAt(c *config.Config, links, all []host.Link) (map[int32]watched, error) {
	index := make(map[int32]bool, len(links))
	for _, l := range links {
		index[l.Index] = true
	}
	d.facts.watched.Store(&index)
	how := d.useXDP(c, all)
	d.sayWithout(c, all, how, len(links) > 0)
	var ring []int32
	for _, l := range links {
		if w := how[l.Index]; !d.sensing(c) || !w.byProgram() {
			how[l.Index] = watched{how: byAFPacket, why: w.why, err: w.err}
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

// useXDP runs the XDP program on the links, where it is wanted and can be.
func (d *daemon) useXDP(c *config.Config, links []host.Link) map[int32]watched {
	s := d.sensor.Load()
	if s == nil || !d.sensing(c) && !d.dropping(c) {
		return nil
	}
	how := make(map[int32]watched, len(links))
	var ethernet []int32
	for _, l := range links {
		if l.HardwareType != unix.ARPHRD_ETHER {
			how[l.Index] = watched{byAFPacket, "no Ethernet header"}
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
	d.sayWithout(c, links, how, failed)
	return how
}

// sayWithout says on which interfaces the XDP program does not run although
// somebody counts on it, and why.
func (d *daemon) sayWithout(c *config.Config, links []host.Link, how map[int32]watched, failed map[int32]error) {
	alone := d.dropping(c) && !d.wants(c, config.MethodNftables)
	var said []string
	for _, l := range links {
		h := how[l.Index]
		expected := errors.Is(failed[l.Index], bpf.ErrNoNative) || failed[l.Index] == nil
		if h.how != byAFPacket || expected && !alone && c.Capture != config.CaptureXDP {
			continue
		}
		text := fmt.Sprintf("%s: no XDP program there (%s): AF_PACKET reads its packets", l.Name, h.why)
		if alone {
			text += `, and nobody is kept out: add nftables to BLOCK_METHOD, or use "auto"`
		}
		said = append(said, text)
	}
	slices.Sort(said)
	d.problems.set("without xdp", strings.Join(slices.Compact(said), "\n"))
}
