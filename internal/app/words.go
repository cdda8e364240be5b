package app

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/host"
	"portsentry/internal/store"
)

// maxNamed is how many of a kind the start message names; the rest are counted.
const maxNamed = 8

// leftAlone lists what is never a trap and who is never acted on.
func (d *daemon) leftAlone(left []host.LeftLink) []string {
	var out []string
	if l := d.served; l != "" {
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
	for _, f := range d.ignore {
		if n := f.entries.Count(); n > 0 {
			who = append(who, fmt.Sprintf("%d %s of %s", n, plural(n, "line", "lines"), f.path))
		}
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
	udp := d.conf.Load().TrapsUDP()
	for _, l := range listeners {
		// A bound UDP socket may be a client's; only on a trap port it matters.
		if l.Addr.IsLoopback() || l.Proto == decode.ProtoUDP && !udp.Has(l.Port) {
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

// short is a length of time without the units that are nought.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func firstOf(words []string) string {
	if len(words) <= maxNamed {
		return strings.Join(words, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(words[:maxNamed], ", "), len(words)-maxNamed)
}

// answerWords says what a scanner gets.
func (d *daemon) answerWords(c *config.Config) string {
	if !blocks(c) {
		return "log only (BLOCK_TCP=0, BLOCK_UDP=0)"
	}
	var natives []string
	for _, m := range d.methods(c) {
		natives = append(natives, m.Name())
	}
	native := len(natives) > 0
	oneProtocol := slices.Contains(natives, string(config.MethodNftables)) || slices.Contains(natives, string(config.MethodXDP)) // the others know hosts only
	word := func(b config.Block) string {
		switch {
		case b == config.BlockNone:
			return "log only"
		case b == config.BlockCommand && oneProtocol:
			return "KILL_RUN_CMD and a ban of the protocol"
		case b == config.BlockCommand && c.KillRunCmd != "":
			return "KILL_RUN_CMD"
		case native && b == config.BlockBan:
			return "ban"
		case wantsHelper(c):
			return "KILL_* commands"
		}
		return "nothing (there is no way to ban)"
	}
	s := fmt.Sprintf("TCP %s, UDP %s", word(c.BlockTCP), word(c.BlockUDP))
	if native {
		s += fmt.Sprintf("; with %s, for %s", strings.Join(natives, " and "), short(c.BanTimeUnverified))
		if accepts(c.Modes) && c.BanTime > c.BanTimeUnverified {
			s += fmt.Sprintf(" (%s on proof)", short(c.BanTime))
		}
	}
	return s
}
