package app

import (
	"fmt"
	"strings"
	"sync"

	"portsentry/internal/config"
	"portsentry/internal/host"
	"portsentry/internal/view"
)

// watching is what is watched at the moment.
type watching struct {
	mu    sync.Mutex
	links []host.Link
	how   map[int32]watched // by index
	begun bool              // something was said about it
	said  bool              // the ready line
}

// watched is how an interface is watched, and why not in a better way.
type watched struct{ how, why string }

// watch points the capture at the interfaces to watch as of now, and says what
// changed.
func (d *daemon) watch() {
	c := d.conf.Load()
	links, left, missing := host.Watched(d.facts.watcher.Snapshot(), c.Interfaces, d.o.Loopback)
	below, all := d.sensing(c) || d.packets.Load() != nil, links
	if !below {
		links, left, missing = nil, nil, nil // trap sockets take from all of them
	}
	how, err := d.pointAt(c, links, all)
	if err != nil {
		d.problems.set("interfaces", fmt.Sprintf("the interfaces watched are the old ones: %v", err))
		return
	}
	d.problems.set("interfaces", "")
	absent := ""
	if len(missing) > 0 {
		absent = "INTERFACES names what is not there: " + strings.Join(missing, ", ") + " (watched as soon as it appears)"
	}
	d.problems.set("missing", absent)

	w := &d.watching
	w.mu.Lock()
	defer w.mu.Unlock()
	before := describe(w.links, w.how)
	w.links, w.how = links, how
	sockets := d.sockets.Load()
	nothing := below && len(links) == 0
	d.problems.quiet("watching", nothing, "nothing is watched: no interface is up and holds an address")
	now := describe(links, how)
	switch {
	case nothing && (before != "" || !w.begun):
		d.say("watching nothing: no interface is up and holds an address; one that appears will be watched")
	case before != now || sockets != nil && !w.begun:
		d.say(d.watchWords(c, now))
	}
	if (!nothing || sockets != nil) && !w.said {
		w.said = true
		d.sayPorts(c)
		d.sayRest(left)
		d.log.Active()
	}
	if !w.begun {
		// A machine whose network comes up later is watched then. Whoever started
		// us need not wait for it.
		w.begun = true
		d.notify("READY=1")
		d.o.ready()
	}
}

// watchWords says what is watched and how.
func (d *daemon) watchWords(c *config.Config, links string) string {
	var parts []string
	if links != "" {
		parts = append(parts, links)
	}
	if s := d.sockets.Load(); s != nil {
		parts = append(parts, "trap sockets ("+s.traps.Method()+")")
	}
	return fmt.Sprintf("watching %s, %s, IPv4 and IPv6", strings.Join(parts, ", "), d.portCounts(c))
}

// sayRest says what is left alone, how it is answered and what does not work.
func (d *daemon) sayRest(left []host.LeftLink) {
	if alone := d.leftAlone(left); len(alone) > 0 {
		d.say("left alone: " + strings.Join(alone, "; "))
	}
	d.say("answer: " + d.answerWords(d.conf.Load()))
}

func describe(links []host.Link, how map[int32]watched) string {
	out := make([]string, len(links))
	for i, l := range links {
		out[i] = l.Name + " (" + how[l.Index].how + ")"
	}
	return strings.Join(out, ", ")
}

func (d *daemon) portCounts(c *config.Config) string {
	tcp, udp := d.trapPorts(c)
	return fmt.Sprintf("%d TCP%s and %d UDP%s ports", tcp.Count(), modeWord(c.Modes.TCP), udp.Count(), modeWord(c.Modes.UDP))
}

// trapPorts are the ports that are watched. Of trap sockets those that there are.
func (d *daemon) trapPorts(c *config.Config) (tcp, udp config.PortSet) {
	tcp, udp = c.TrapsTCP(), c.TrapsUDP()
	s := d.sockets.Load()
	if s == nil {
		return tcp, udp
	}
	heldTCP, heldUDP, err := s.traps.Ports()
	if err != nil {
		return tcp, udp
	}
	if c.Modes.TCP == config.Connect {
		tcp = heldTCP
	}
	if c.Modes.UDP == config.Connect {
		udp = heldUDP
	}
	return tcp, udp
}

// modeWord names a mode that is not the usual one.
func modeWord(m config.Mode) string {
	if m == config.Stealth || m == config.Unwatched {
		return ""
	}
	return " (" + m.Word(config.Dialect2x, false) + ")"
}

// sayTraps says which trap ports could not be taken.
func (d *daemon) sayTraps(s *socketPath) {
	d.problems.set("traps", strings.Join(s.traps.Problems(), "\n"))
}

// watched is the list for status.
func (d *daemon) watched() []view.Watched {
	d.watching.mu.Lock()
	defer d.watching.mu.Unlock()
	out := make([]view.Watched, 0, len(d.watching.links)+1)
	for _, l := range d.watching.links {
		h := d.watching.how[l.Index]
		out = append(out, view.Watched{Interface: l.Name, How: h.how, Why: h.why})
	}
	if s := d.sockets.Load(); s != nil {
		out = append(out, view.Watched{Interface: "trap sockets", How: s.traps.Method()})
	}
	return out
}
