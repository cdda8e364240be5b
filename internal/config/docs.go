package config

// KeyDoc describes one key of portsentry.conf, for a manual. Text is plain:
// paragraphs with an empty line between, no mark-up.
type KeyDoc struct {
	Key     string
	Group   string // the heading it belongs under; keys of a group follow each other
	Default string // as the file would have it; "": not set
	Values  string // what may stand between the quotes
	Since   string // "1.x", "2.x" or "3.0": the first PortSentry that had it
	Brief   string // one line
	Text    string
}

// Docs describes every key, in the order of the effective configuration.
func Docs() []KeyDoc {
	texts := make(map[string]KeyDoc)
	for _, group := range [][]KeyDoc{docsPorts(), docsCapture(), docsFiles(), docsTrigger(), docsAnswer(), docsCommands()} {
		for _, d := range group {
			texts[d.Key] = d
		}
	}
	var all []KeyDoc
	for _, s := range settings(new(Config)) {
		if s.def != "" {
			s.read(s.def)
		}
		d := texts[s.key]
		d.Key, d.Default = s.key, s.show()
		all = append(all, d)
	}
	return all
}

const (
	portValues     = "ports and ranges of ports, commas between: 1,11,512-515"
	advancedValues = "a number from 2 to 65536"
	flagValues     = "0 (no) or 1 (yes)"
	blockValues    = "0 (log only), 1 (ban) or 2 (KILL_RUN_CMD, and a ban of the protocol)"
	timeValues     = "a length of time: 90s, 10m, 1h30m, 1d, 2w; at least 1s, at most 366d"
	commandValues  = "a line for /bin/sh; it must name $TARGET$"
	anyCommand     = "a line for /bin/sh"
	pathValues     = "a path"
)

func docsPorts() []KeyDoc {
	const group = "Trap ports"
	return []KeyDoc{{
		Key: "TCP_PORTS", Group: group, Since: "1.x", Values: portValues,
		Brief: "TCP ports that nobody has a reason to talk to",
		Text: `The trap ports of the modes -tcp and -stcp, --connect and --stealth. A port that a service listens on is left alone while the service runs, but while it is down its clients look like scanners: leave out the ports of your own services.

There may be any number of ports; 1.x took the first 64 and no ranges. With a flag of 1.x a mode refuses to start without its list. Otherwise one of TCP_PORTS and UDP_PORTS is enough.`,
	}, {
		Key: "UDP_PORTS", Group: group, Since: "1.x", Values: portValues,
		Brief: "UDP ports that nobody has a reason to talk to",
		Text:  `As TCP_PORTS, for UDP (-udp, -sudp, --connect, --stealth). The source of a datagram is easily forged, so what a UDP probe brings about is always a ban on unverified evidence.`,
	}, {
		Key: "ADVANCED_PORTS_TCP", Group: group, Since: "1.x", Values: advancedValues,
		Brief: "advanced mode: TCP ports below this number are traps",
		Text: `With -atcp or --advanced every port from 1 to one below this number is a trap, unless something listens on it or ADVANCED_EXCLUDE_TCP names it. Services that start and stop while PortSentry runs are followed. 65536 is all ports.

Not set, it means 1024.`,
	}, {
		Key: "ADVANCED_PORTS_UDP", Group: group, Since: "1.x", Values: advancedValues,
		Brief: "advanced mode: UDP ports below this number are traps",
		Text:  `As ADVANCED_PORTS_TCP, for UDP (-audp, --advanced).`,
	}, {
		Key: "ADVANCED_EXCLUDE_TCP", Group: group, Since: "1.x", Values: portValues,
		Brief: "advanced mode: TCP ports that are no traps",
		Text:  `What honest machines send to unasked, such as 113 (mail and chat servers ask it for a user name) and 139 (Windows).`,
	}, {
		Key: "ADVANCED_EXCLUDE_UDP", Group: group, Since: "1.x", Values: portValues,
		Brief: "advanced mode: UDP ports that are no traps",
		Text:  `What honest machines send to unasked, such as 67 (DHCP), 137 and 138 (Windows) and 520 (routers).`,
	}}
}

func docsCapture() []KeyDoc {
	const group = "Where to watch"
	return []KeyDoc{{
		Key: "INTERFACES", Group: group, Since: "3.0", Values: "names of interfaces, commas or blanks between",
		Brief: "the interfaces to watch",
		Text: `Not set, every interface is watched that is up and holds an address of this machine, those that appear later included, but not the loopback. One that is named here and not there is said to be missing, and watched when it appears.

The option -i takes the place of this key.`,
	}, {
		Key: "CAPTURE", Group: group, Since: "3.0", Values: "auto, xdp or afpacket",
		Brief: "how packets are read",
		Text: `auto takes a program in the network driver (XDP) on every interface whose driver can run one, and a packet socket on the others. xdp has it run behind the driver where that cannot, which is slower. afpacket insists on a packet socket. An XDP program of somebody else's is left alone. status says which it is, and why.

XDP needs Linux 5.18, and sees connections that are translated or masqueraded from Linux 6.1 on.`,
	}}
}

func docsFiles() []KeyDoc {
	const group = "Files and log"
	return []KeyDoc{{
		Key: "IGNORE_FILE", Group: group, Since: "1.x", Values: pathValues,
		Brief: "hosts that are never acted on",
		Text: `One entry a line: an address or network, IPv4 or IPv6, a DNS name, or, with GEO_FILES, a country or autonomous system; a # begins a comment. The file is read again when it has changed. A line with a mistake is named and left out, the others hold. A file beside it with .static at the end of its name, as Debian had it, is read in the same way.

Names are asked for their addresses every 5 minutes, and again before anybody is banned. An address that a name has no longer is spared for an hour more, and what was known stays for a week where nobody answers.

The addresses of this machine, its gateways and its resolvers, and the address you are logged in from need no line.`,
	}, {
		Key: "HISTORY_FILE", Group: group, Since: "1.x", Values: pathValues,
		Brief: "one line for every scan seen",
		Text:  `With the log lines of 1.x it has one line for every host that gets blocked, as it had then. The file is added to and never emptied. When it is rotated, the new one is written to; no signal is needed. Not set, no history is kept.`,
	}, {
		Key: "BLOCKED_FILE", Group: group, Since: "1.x", Values: pathValues,
		Brief: "one line for every host that is blocked now",
		Text: `To let a host in again, take its line out of the file: its ban is lifted and what can be undone is undone. portsentry unban does the same.

The file must be root's and lie where only root may write. Else it is read once, left alone, and said to be.`,
	}, {
		Key: "SOURCES_FILE", Group: group, Since: "3.0", Values: pathValues,
		Brief: "what is remembered of sources, for SCAN_DETECT=full",
		Text:  `Written every ten minutes and when portsentry ends, and read when it starts, so that a restart is no amnesty for who scans one port a day. It has no addresses in it, only keyed hashes, and is 32 MiB at most. Not set, that is forgotten at the end. A file that is there and is none of these is left alone.`,
	}, {
		Key: "DATABASE_FILE", Group: group, Since: "3.0", Values: pathValues,
		Brief: "bans with their history, sources, and what was seen of them",
		Text: `What why, events, sources and report answer from, and what bans are put back from after a reboot. Not set, or where it cannot be written, all that is kept in memory until portsentry ends, and a reboot ends bans.

A file that is damaged is set aside under another name, and a new one is begun.`,
	}, {
		Key: "DATABASE_KEEP", Group: group, Since: "3.0", Values: timeValues,
		Brief: "how long the database keeps what happened",
		Text:  `Bans that are in force stay.`,
	}, {
		Key: "DATABASE_SIZE", Group: group, Since: "3.0", Values: "a number of MiB from 8 to 65536",
		Brief: "how large the database may become",
		Text:  `What is oldest goes first. Bans that are in force stay.`,
	}, {
		Key: "GEO_FILES", Group: group, Since: "3.0", Values: "paths, commas between",
		Brief: "databases of countries and networks, for the ignore file",
		Text:  `Files of the MaxMind DB format (.mmdb), which are not ours to ship. With one that knows countries the ignore file may have lines such as country:IS, with one that knows autonomous systems AS64496. A file is read again when it has changed; one that cannot be read leaves what was read of it before in force.`,
	}, {
		Key: "RESOLVE_HOST", Group: group, Since: "1.x", Values: flagValues,
		Brief: "look up the names of scanners",
		Text: `1 asks the resolver for the name of a scanner and writes it where the log lines have a place for it. Nothing is decided by a name, and no packet waits for one.

Whoever owns an address also chooses the name it gives, and the question tells his name server that he was noticed. 0 loses nothing.`,
	}, {
		Key: "LOG_FORMAT", Group: group, Since: "3.0", Values: "2.x, 1.x or json",
		Brief: "the form of the log lines",
		Text:  `The lines of PortSentry 2.x or 1.x, to the letter, as log watchers know them, or one JSON object a line. Not set, it is 1.x when started with a flag of 1.x, else 2.x.`,
	}, {
		Key: "METRICS_LISTEN", Group: group, Since: "3.0", Values: "an address with a port, or the path of a socket",
		Brief: "where Prometheus may ask for metrics",
		Text:  `GET /metrics there gives the counters, GET /healthz says whether all is well. Nobody is asked who he is: give an address that only those can reach who may know, such as 127.0.0.1:9797. Not set, nothing listens.`,
	}}
}

func docsTrigger() []KeyDoc {
	const group = "When to answer"
	return []KeyDoc{{
		Key: "SCAN_DETECT", Group: group, Since: "3.0", Values: "traps or full",
		Brief: "what counts as a scan",
		Text: `traps: packets to the trap ports, as of old. Not set, it is this.

full: also whoever tries one thing after the other that nobody serves here, at any speed, whether a trap is among it or not: ports without a listener, protocols that nobody speaks. One such attempt is noise and is not written down. What somebody serves is never held against its clients, nor is what may be an answer, or the tail of a connection: ACKs, and datagrams to the ports that this machine itself sends from, count at trap ports only.`,
	}, {
		Key: "SCAN_TRIGGER", Group: group, Since: "1.x", Values: "a number from 0 to 2147483647",
		Brief: "which hit of a host is the first to be answered",
		Text:  `0 and 1 are the same: the first one. 3 lets two pass and answers from the third on. Hits count for a source, over all its ports and both protocols.`,
	}, {
		Key: "SCAN_TRIGGER_WINDOW", Group: group, Since: "3.0", Values: timeValues,
		Brief: "hits further apart than this do not add up",
		Text:  `Not set, hits add up for as long as their source is remembered, as of old.`,
	}}
}
