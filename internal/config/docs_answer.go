package config

func docsAnswer() []KeyDoc {
	const group = "Answer"
	return []KeyDoc{{
		Key: "BLOCK_TCP", Group: group, Since: "1.x", Values: blockValues,
		Brief: "what a scan of TCP ports is answered with",
		Text: `0 writes it down, no more. 1 bans the source: by BLOCK_METHOD, and by KILL_ROUTE, KILL_HOSTS_DENY and KILL_RUN_CMD where they are set. 2 runs KILL_RUN_CMD only and, where BLOCK_METHOD names a way to ban, bans the source from TCP.

Before you set 1 or 2, put the addresses you administer this machine from into the ignore file.`,
	}, {
		Key: "BLOCK_UDP", Group: group, Since: "1.x", Values: blockValues,
		Brief: "what a scan of UDP ports is answered with",
		Text:  `As BLOCK_TCP, for UDP.`,
	}, {
		Key: "BLOCK_METHOD", Group: group, Since: "3.0", Values: `none, auto or dryrun; or xdp, nftables, route and ipset, or several of these four, commas between: "xdp,nftables"`,
		Brief: "the native ways to ban",
		Text: `none: only the KILL_ settings ban, as in 1.x and 2.x. This is what a file without the key means.

auto: xdp and nftables, both from one list of bans. Where this kernel or an interface cannot do one of them, the other bans alone; where neither can be had, status says that there is no native ban.

xdp: the XDP program of CAPTURE drops what the banned send before the rest of the kernel hears of it, on the interfaces that it runs on and nowhere else. It bans with the first packet to a trap port, by itself, ends each ban by itself, even if PortSentry is dead, and counts what each has dropped.

nftables: a table of our own. The kernel bans with the first packet to a trap port, by itself, and ends each ban by itself, even if PortSentry is dead.

route: a route that leads nowhere. Our answers do not reach the host any more; its packets still reach us, so it stops connections and hides nothing from a flood.

ipset: the host is put into a set, with an end. Rules of your own must drop what is in the set.

dryrun: nobody is banned; what would have been done is said.`,
	}, {
		Key: "BLOCK_EVIDENCE", Group: group, Since: "3.0", Values: "any or verified",
		Brief: "what a ban may be founded on",
		Text: `A single packet may carry any address as its source. any bans such a source for BAN_TIME_UNVERIFIED, in a way that cuts no connection that exists. verified does not: the source only goes without answers from the ports that it has no business with, and no command is run.

A source is verified when it has completed a handshake with a trap port: in connect mode, or with VERIFY_SOURCE.`,
	}, {
		Key: "VERIFY_SOURCE", Group: group, Since: "3.0", Values: "0 or 1",
		Brief: "challenge who probes a TCP trap port",
		Text: `1 has the kernel answer a SYN to a trap port, without keeping anything in memory, in a way that only the owner of the address can take up. Who completes the handshake is verified. The trap ports look open to a scanner, as in connect mode, and reset whoever goes on; a scanner in two steps, which looks again at what was open, proves itself. A source that answers with a reset seems to be in use, which bans shows as alive, and proves no more: it may be somebody in whose name the packet was forged.

No more than 10,000 answers a second leave, nor more than 100 to one network; ACKs that were guessed turn the challenge off for a minute when there are more than 1,000 a second. It takes XDP (see CAPTURE), and stealth or advanced mode for TCP.`,
	}, {
		Key: "BAN_TIME", Group: group, Since: "3.0", Values: timeValues,
		Brief: "how long a ban of a verified source lasts",
		Text:  `A source that completed a handshake with one trap port opens no new connection for this long. One that did so with several trap ports is cut off entirely: no web page makes a browser do that. Each further ban of the same host is longer (BAN_TIME_FACTOR), up to BAN_TIME_MAX; those of an unverified source grow up to this length, or up to an hour.`,
	}, {
		Key: "BAN_TIME_UNVERIFIED", Group: group, Since: "3.0", Values: timeValues,
		Brief: "how long a ban of an unverified source lasts",
		Text:  `The source may be forged, and somebody else's. The length grows with each ban of the same host (BAN_TIME_FACTOR), up to BAN_TIME, but not beyond an hour.`,
	}, {
		Key: "BAN_TIME_FACTOR", Group: group, Since: "3.0", Values: "a number from 1 to 100",
		Brief: "how much longer each further ban of a host lasts",
		Text:  `The second ban of a host lasts this many times as long as its first, the third this many times as long as that, up to BAN_TIME_MAX or, where the source is not verified, BAN_TIME or an hour, whichever is less. 1: all last the same. Who has not been banned for as long as the database is kept begins anew.`,
	}, {
		Key: "BAN_TIME_MAX", Group: group, Since: "3.0", Values: timeValues,
		Brief: "how long a ban lasts at most",
		Text:  `Of what is begun by itself. portsentry ban takes any length.`,
	}}
}

func docsCommands() []KeyDoc {
	const group = "Commands of old"
	return []KeyDoc{{
		Key: "KILL_ROUTE", Group: group, Since: "1.x", Values: commandValues,
		Brief: "a command that cuts the way to the host",
		Text: `Commands are run by /bin/sh as root, away from the packets, four at a time, each for 30 seconds at most. The exit status decides: a command that fails is said to have failed, and is tried again with the next hit.

In all of them, $TARGET$ is the address, $PORT$ the port that was hit, $PROTO$ tcp or udp, $FAMILY$ 4 or 6, $MODE$ the way of watching (connect, stealth or advanced; with a flag of 1.x its word, such as stcp), $KIND$ the kind of probe (syn, fin, null, xmas, maimon, ack, odd, udp or connect), $COUNT$ the number of hits, $EVIDENCE$ verified or unverified, $DIRECTION$ along the ports of one host or along hosts, where that is known, else none. They are in the environment, too, as PORTSENTRY_TARGET and so on. Other words between dollar signs are mistakes.

The order is KILL_HOSTS_DENY, KILL_ROUTE, KILL_RUN_CMD; see KILL_RUN_CMD_FIRST. A native ban comes before all of them. A command that can only mean IPv4 is not run for an IPv6 host, and this is said.`,
	}, {
		Key: "KILL_ROUTE6", Group: group, Since: "3.0", Values: commandValues,
		Brief: "the same for IPv6 hosts",
		Text:  `Takes the place of KILL_ROUTE for hosts with an IPv6 address.`,
	}, {
		Key: "KILL_ROUTE_UNDO", Group: group, Since: "3.0", Values: anyCommand,
		Brief: "a command that takes KILL_ROUTE back",
		Text:  `It is run when the ban has ended or is lifted. Without it, nobody but you ends what KILL_ROUTE began, and portsentry bans says so.`,
	}, {
		Key: "KILL_HOSTS_DENY", Group: group, Since: "1.x", Values: "a line of hosts_access(5); it must name $TARGET$",
		Brief: "a line for /etc/hosts.deny",
		Text:  `For services that use TCP wrappers. The line is added once and taken out again when the ban has ended; one that was there before stays. The file keeps its owner, mode and links.`,
	}, {
		Key: "KILL_RUN_CMD", Group: group, Since: "1.x", Values: anyCommand,
		Brief: "any command, for each host that is answered",
		Text:  `To tell somebody, or something. Do not strike back: the address may be a victim's.`,
	}, {
		Key: "KILL_RUN_CMD_UNDO", Group: group, Since: "3.0", Values: anyCommand,
		Brief: "a command for the end of the ban",
		Text:  `It is run when the ban that KILL_RUN_CMD was run for has ended or is lifted.`,
	}, {
		Key: "KILL_RUN_CMD_FIRST", Group: group, Since: "1.x", Values: flagValues,
		Brief: "run KILL_RUN_CMD before the others",
		Text:  `1: KILL_RUN_CMD, KILL_HOSTS_DENY, KILL_ROUTE. 0: KILL_HOSTS_DENY, KILL_ROUTE, KILL_RUN_CMD.`,
	}, {
		Key: "PORT_BANNER", Group: group, Since: "1.x", Values: "a text of 1024 bytes at most",
		Brief: "what a trap port says to who connects to it",
		Text:  `In connect mode only (-tcp, -udp, --connect), as it stands, without a newline, and not to hosts that are spared or have not reached SCAN_TRIGGER. It tells a scanner that there is a trap.`,
	}}
}
