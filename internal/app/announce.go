package app

import (
	"fmt"
	"strings"
	"sync"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/host"
	"portsentry/internal/store"
	"portsentry/internal/view"
)

// readyLine is PortSentry's since 1998; log watchers know it.
const readyLine = "Portsentry is now active and listening."

// watching is what is watched at the moment.
type watching struct {
	mu    sync.Mutex
	links []host.Link
	begun bool // something was said about it
	said  bool // the ready line
}

// watch points the capture at the interfaces to watch as of now, and says what
// changed.
func (d *daemon) watch() {
	links, left, missing := host.Watched(d.facts.watcher.Snapshot(), d.config.Interfaces)
	index := make([]int32, len(links))
	watched := make(map[int32]bool, len(links))
	for i, l := range links {
		index[i], watched[l.Index] = l.Index, true
	}
	d.facts.watched.Store(&watched)
	if err := d.ring.SetInterfaces(index); err != nil {
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
	before := names(w.links)
	w.links = links
	d.problems.quiet("watching", len(links) == 0, "nothing is watched: no interface is up and holds an address")
	now := names(links)
	switch {
	case len(links) == 0 && (before != "" || !w.begun):
		fmt.Fprintln(d.o.Stderr, "watching nothing: no interface is up and holds an address; one that appears will be watched")
	case before != now:
		fmt.Fprintf(d.o.Stderr, "watching %s, %s, IPv4 and IPv6\n", describe(links), portCounts(d.config))
	}
	w.begun = true
	if len(links) > 0 && !w.said {
		w.said = true
		d.sayRest(left)
		d.log.Notice(readyLine)
	}
}

// sayRest says what is left alone, how it is answered and what does not work.
func (d *daemon) sayRest(left []host.LeftLink) {
	if alone := d.leftAlone(left); len(alone) > 0 {
		fmt.Fprintf(d.o.Stderr, "left alone: %s\n", strings.Join(alone, "; "))
	}
	fmt.Fprintf(d.o.Stderr, "answer: %s\n", answerWords(d.config, d.table != nil))
}

func names(links []host.Link) string {
	var b strings.Builder
	for _, l := range links {
		b.WriteString(l.Name)
		b.WriteByte(' ')
	}
	return b.String()
}

func describe(links []host.Link) string {
	out := make([]string, len(links))
	for i, l := range links {
		out[i] = l.Name + " (AF_PACKET)"
	}
	return strings.Join(out, ", ")
}

func portCounts(c *config.Config) string {
	return fmt.Sprintf("%d TCP and %d UDP ports", c.TCPPorts.Count(), c.UDPPorts.Count())
}

// maxNamed is how many of a kind the start message names; the rest are counted.
const maxNamed = 8

// leftAlone lists what is never a trap and who is never acted on.
func (d *daemon) leftAlone(left []host.LeftLink) []string {
	var out []string
	if l := d.listening(); l != "" {
		out = append(out, l)
	}
	s := d.facts.watcher.Snapshot()
	var who []string
	for _, g := range s.Gateways {
		who = append(who, g.String()+" gateway")
	}
	for _, r := range s.Resolvers {
		who = append(who, r.String()+" resolver")
	}
	for _, l := range s.Logins {
		who = append(who, l.String()+" your login")
	}
	if n := len(d.ignore.prefixes); n > 0 {
		who = append(who, fmt.Sprintf("%d %s of %s", n, plural(n, "line", "lines"), d.ignore.path))
	}
	if len(who) > 0 {
		out = append(out, firstOf(who)+" (protected)")
	}
	var links []string
	for _, l := range left {
		if !l.Link.Loopback && l.Link.Up {
			links = append(links, l.Link.Name+" ("+l.Why+")")
		}
	}
	if len(links) > 0 {
		out = append(out, firstOf(links))
	}
	return out
}

// listening names what is served: those ports are no traps.
func (d *daemon) listening() string {
	sockets, err := host.NewSockets()
	if err != nil {
		return ""
	}
	defer sockets.Close()
	listeners, err := sockets.Listeners()
	if err != nil {
		return ""
	}
	host.Owners(listeners)
	var out []string
	seen := make(map[string]bool)
	for _, l := range listeners {
		// A bound UDP socket may be a client's; only on a trap port it matters.
		if l.Addr.IsLoopback() || l.Proto == decode.ProtoUDP && !d.config.UDPPorts.Has(l.Port) {
			continue
		}
		word := strings.TrimSpace(fmt.Sprintf("%d/%s %s", l.Port, strings.ToLower(store.ProtoName(l.Proto)), l.Process))
		if !seen[word] {
			seen[word] = true
			out = append(out, word)
		}
	}
	if len(out) == 0 {
		return ""
	}
	return firstOf(out) + " (listening)"
}

func firstOf(words []string) string {
	if len(words) <= maxNamed {
		return strings.Join(words, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(words[:maxNamed], ", "), len(words)-maxNamed)
}

// answerWords says what a scanner gets.
func answerWords(c *config.Config, native bool) string {
	if !blocks(c) {
		return "log only (BLOCK_TCP=0, BLOCK_UDP=0)"
	}
	word := func(b config.Block) string {
		switch {
		case b == config.BlockNone:
			return "log only"
		case b == config.BlockCommand && native:
			return "KILL_RUN_CMD and a ban of the protocol"
		case b == config.BlockCommand:
			return "KILL_RUN_CMD"
		case native:
			return "ban"
		case wantsHelper(c):
			return "KILL_* commands"
		}
		return "nothing (there is no way to ban)"
	}
	s := fmt.Sprintf("TCP %s, UDP %s", word(c.BlockTCP), word(c.BlockUDP))
	if native {
		s += fmt.Sprintf("; with nftables, in the kernel, for %s", c.BanTimeUnverified)
	}
	return s
}

// watched is the list for status.
func (d *daemon) watched() []view.Watched {
	d.watching.mu.Lock()
	defer d.watching.mu.Unlock()
	out := make([]view.Watched, len(d.watching.links))
	for i, l := range d.watching.links {
		out[i] = view.Watched{Interface: l.Name, How: "AF_PACKET", Why: captureWhy(d.config.Capture)}
	}
	return out
}

// captureWhy says why it is not something better.
func captureWhy(m config.CaptureMethod) string {
	if m == config.CaptureXDP {
		return "CAPTURE=xdp: this version has no XDP program"
	}
	return ""
}
