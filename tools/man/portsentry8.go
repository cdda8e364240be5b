package main

import "strings"

// option is one option of the daemon.
type option struct{ short, long, arg, text string }

// tag is the option as the page shows it.
func (o option) tag() string {
	long := "`--" + o.long + "`"
	if o.arg != "" {
		long += " <" + o.arg + ">"
	}
	if o.short == "" {
		return long
	}
	return "`-" + o.short + "`, " + long
}

// command is one subcommand.
type command struct{ name, args, text string }

func (c command) tag() string { return strings.TrimSpace("`" + c.name + "` " + c.args) }

// modes1x are the flags of PortSentry 1.x.
var modes1x = []struct{ flags, text string }{
	{"`-tcp`, `-udp`", "Connect mode: the trap ports are opened, and whoever connects, or sends a datagram, is scanning."},
	{"`-stcp`, `-sudp`", "Stealth mode: packets to the trap ports are looked at below the sockets."},
	{"`-atcp`, `-audp`", "Advanced stealth mode: as stealth mode, for every port from 1 to one below `ADVANCED_PORTS_TCP` or `ADVANCED_PORTS_UDP` that no service listens on and that is not excluded."},
}

// options are those of the program without a command, and the global ones.
var options = []option{
	{"", "stealth", "", "Watch packets to the trap ports below the sockets. This is what it does without being told."},
	{"", "connect", "", "Open the trap ports, take what connects, send `PORT_BANNER` if one is set, and close."},
	{"", "advanced", "", "Watch every unused port below `ADVANCED_PORTS_TCP` and `ADVANCED_PORTS_UDP`."},
	{"c", "configfile", "path", "Read this configuration and not `/etc/portsentry/portsentry.conf`."},
	{"i", "interface", "name", "Watch this interface only; may be given several times. `ALL` and `any` mean every interface, `ALL_NLO` every one but the loopback. It comes before `INTERFACES` in the configuration."},
	{"l", "logoutput", "where", "Log to `stdout` or to `syslog`; given twice, to both."},
	{"m", "method", "name", "`pcap` or `raw`: accepted because 2.x had it. `CAPTURE` in the configuration says how packets are read."},
	{"D", "daemon", "", "Detach from the terminal and log to syslog."},
	{"", "foreground", "", "Do not detach where a flag of 1.x would."},
	{"", "pidfile", "path", "Write the process number there. Detached, it is `/run/portsentry.pid` unless you say otherwise."},
	{"L", "disable-local-check", "", "Show probes from this machine's own addresses like anybody's. They are never answered all the same."},
	{"S", "disable-service-check", "", "A port in the lists is a trap even while a service listens on it. Its clients are scanners then: for honeypots."},
	{"d", "debug", "", "Say everything."},
	{"v", "verbose", "", "Say more."},
	{"", "socket", "path", "The control socket, which the commands ask and the daemon listens on."},
	{"h", "help", "", "Say how it is used."},
	{"V", "version", "", "Say the version."},
}

// subcommands are those that a person calls.
var subcommands = []command{
	{"check", "", "Read the configuration and say everything that is wrong with it, each with its line and what was probably meant. Without a mistake, print what is in force. Nothing is touched, and no privilege is needed."},
	{"status", "[`--json`]", "Say what the running daemon watches, what it lost, how it answers and what is wrong."},
	{"health", "[`-q`] [`--json`]", "Say in one line whether all is well, and by the exit status: 0 it is, 1 it is not, 2 nobody answers. `-q` says nothing."},
	{"bans", "[`--exact`] [`--json`]", "List who is cut off, from what, why, and until when."},
	{"ban", "[`--for` <time>] [`--reason` <text>] [`--force`] [`--confirm-within` <time>] [`--json`] <ADDRESS>|<RANGE>", "Cut an address or a range off from everything, for BAN_TIME unless `--for` says otherwise, also where the configuration answers nobody. It is refused for who is needed or connected to a service, for where you are logged in from, and for more than a /8 of IPv4 or a /32 of IPv6; `--force` bans them all the same, but never this host. Ranges and `--force` are root's; members of the group may ban single addresses and IPv6 /64 networks."},
	{"unban", "[`--confirm-within` <time>] [`--json`] <ADDRESS>|<RANGE>|`all`", "Lift every ban of the address or inside the range, and of the networks it lies in, and undo what was done. Ranges and `all` are root's."},
	{"reload", "[`--confirm-within` <time>] [`--json`]", "Have the daemon read its configuration again, as `SIGHUP` does, and say all that is wrong with it. Exit status 0: it is in force. For root."},
	{"confirm", "[`--json`] [<NUMBER>]", "Let a change stand that was made with `--confirm-within`: otherwise it is taken back after that time, and at the latest when the daemon stops. Without a number it is the only one there is, or the only one of yours."},
	{"pending", "[`--json`]", "List the changes that wait to be confirmed."},
	{"why", "[`--pcap` <path>] [`--exact`] [`--json`] <ADDRESS>", "Say why an address is banned, or why not: what it did, the packets that decided, the settings that led to it and where they were made, how the length of the ban came about, earlier bans, and how to undo it. `--pcap` writes those packets as a capture (`-`: to standard output) for `tcpdump -r` or `replay`: their headers, rebuilt from what was kept of them; options and payloads are not kept. Exit status 1: nothing is known of it."},
	{"events", "[`-f`] [`--since` <time>] [`--until` <time>] [`--source` <ADDRESS>] [`--kind` <kind>] [`-n` <lines>] [`--exact`] [`--json`]", "Say what happened, newest first: what was seen of each source, by kind and span of time, what scans were found, which bans began and ended, who changed what. With `-f`, what happens from now on, a line each; what one is too slow for is counted and said. Exit status 1 with `-f`: the daemon has gone. A time is how long ago (`90s`, `1h`, `2d`) or when (`09:30`, `2026-11-21`). A kind is one of probe (`syn`, `udp`, ...) or `probes`, `scan`, `ban`, `end`, `change`."},
	{"sources", "[`--since` <time>] [`--source` <ADDRESS>] [`-n` <lines>] [`--exact`] [`--json`]", "List who was seen, the latest first: how much, by which kinds of probe, with what, and whether it is banned."},
	{"top", "", "Show on the terminal, four times a second at most, how many probes come, who sends them and at what rate, which ports they are for, what happens, and who is banned. Keys go through the rows, say why, ban and unban, each after a question; `?` shows them all. Needs a terminal of 40 columns and 10 lines; NO_COLOR is respected, and a TERM that cannot move its cursor refused with exit status 2."},
	{"report", "[`--since` <time>] [`--until` <time>] [`--format` `text`|`markdown`|`html`|`json`]", "Sum up what happened in the last 24 hours, or since then: how much, who, which ports, what was learned before a ban, bans and their ends. As HTML it is one page that needs nothing but itself."},
	{"replay", "[`--config` <path>] [`--detect` `full`|`traps`] [`--local` <networks>] [`--json`] <FILE> ...", "Run the detection over captures (pcap and pcapng, gzipped or not; `-` is standard input), in their own time, and say who scanned. Several files go through one engine in the order given. `--config` asks what that configuration would have said; without it nothing of this machine has a say. `--detect` is what `SCAN_DETECT` is in the configuration, `full` without one. `--local` names the own networks, separated by commas; without it they are guessed, and trap ports count everywhere. Nobody is banned, and no privilege is needed. Exit status 1: a file could not be read to its end."},
	{"selftest", "[`--json`]", "Make a scanner and a host in network namespaces of their own, run this very program on the host with the configuration at hand, send it every kind of probe, each from an address of its own, and print what was seen, named, banned and released. What the configuration does not promise is shown as not asked for. Files that it names are others in the test, and commands (`KILL_ROUTE`, `KILL_HOSTS_DENY`, `KILL_RUN_CMD`) are not run: nothing of the machine is touched. It takes root. Exit status 1: not everything went as promised."},
	{"clear", "", "Take everything of portsentry's out of the kernel, where no daemon runs: the XDP program and its bans, the firewall table, blackhole routes with the protocol number 112, and bans in the sets portsentry4 and portsentry6. What the database still knows begins again with the next start. For root."},
	{"completion", "`bash`|`zsh`|`fish`", "Print a script that completes command lines in that shell."},
}

// files are those that it reads and writes, the configuration's names apart.
var files = []struct{ path, text string }{
	{"/etc/portsentry/portsentry.conf", "The configuration, see portsentry.conf(5). Without one, the shipped lists are watched and nothing is answered."},
	{"/etc/portsentry/portsentry.ignore", "Who is never acted on."},
	{"/etc/portsentry/portsentry.modes", "Of Red Hat's packages: the modes to watch in, where no option says so."},
	{"/etc/default/portsentry", "Of Debian's packages: `TCP_MODE` and `UDP_MODE`, where neither an option nor `portsentry.modes` says so."},
	{"/var/lib/portsentry/portsentry.history", "A line for every scan."},
	{"/var/lib/portsentry/portsentry.blocked", "A line for every host that is blocked now. Taking one out lifts the ban. Started with a flag of 1.x, there is one for each mode, and its name ends in the mode: `portsentry.blocked.stcp`."},
	{"/etc/hosts.deny", "What `KILL_HOSTS_DENY` adds is taken out again when the ban ends."},
	{"/run/portsentry/portsentry.sock", "The control socket, for root and the group portsentry."},
	{"/run/portsentry.pid", "The process number of a daemon that has detached."},
}

func portsentry8() *page {
	p := newPage("portsentry", 8, "notice who probes this machine, and cut them off")

	p.section("Synopsis")
	p.WriteString(".nf\n" + inline("`portsentry` [`--stealth` | `--connect` | `--advanced`] [<option> ...]") + "\n" +
		inline("`portsentry` `-tcp` | `-stcp` | `-atcp` | `-udp` | `-sudp` | `-audp` [<option> ...]") + "\n" +
		inline("`portsentry` <command> [<option> ...]") + "\n.fi\n")

	p.section("Description")
	p.text("Portsentry watches ports that nobody has a reason to talk to. Whoever does is scanning: it says who, how and where, " +
		"and answers as the configuration says. A port that a service listens on is left alone by itself, for as long as the service runs.\n\n" +
		"Without a mode it watches TCP and UDP in stealth mode. It takes the configuration, the command lines and the ignore file of PortSentry 1.x and 2.x as they are.\n\n" +
		"This machine's own addresses, its gateways, resolvers, time servers, the addresses in the ignore file and those of logged-in users are never acted on. " +
		"Every native ban ends by itself.")

	p.section("Options")
	for _, o := range options {
		p.item(o.tag(), o.text)
	}

	p.section("Flags of PortSentry 1.x")
	p.text("One or several, at most one for TCP and one for UDP; one process watches both. A second start with the other one joins the first. With any of them it detaches, unless `--foreground` is given, " +
		"logs to syslog in the words of 1.x, and writes its files in the form and under the names of 1.x.")
	for _, m := range modes1x {
		p.item(m.flags, m.text)
	}

	p.section("Commands")
	p.text("All but `check`, `replay`, `selftest`, `clear` and `completion` ask the running daemon over its control socket, which root and the members of the group portsentry may do.")
	for _, c := range subcommands {
		p.item(c.tag(), c.text)
	}

	p.section("Signals")
	p.item("`SIGHUP`", "Read the configuration and the ignore file again. With a mistake in it, the old configuration stays in force. Bans stay. "+
		"The first `KILL_` setting needs a restart: what runs commands starts with the daemon, before it gives up its privileges.")
	p.item("`SIGTERM`, `SIGINT`", "Stop in order. Native bans that are in force stay until they end; trap rules in the kernel are taken away. A second one stops at once.")

	p.section("Exit status")
	p.item("`0`", "All went well; the daemon was stopped in order.")
	p.item("`1`", "The daemon could not start or go on. `health`: not all is well. `unban`: nobody there is banned. `confirm`: nothing waits. `why`: nothing is known of it. `events -f`: the daemon has gone.")
	p.item("`2`", "A command could not do what was asked. `check`: there are mistakes.")
	p.item("`141`", "Whoever read the output has stopped, as in `portsentry bans | head`. Nothing is said.")
	p.item("`255`", "The daemon could not start or go on, and was started with a flag of 1.x.")

	p.section("Files")
	for _, f := range files {
		p.item("`"+f.path+"`", f.text)
	}

	p.section("Examples")
	p.text("See what is wrong with a configuration, watch with it, and let somebody in again:")
	p.example("portsentry check -c /etc/portsentry/portsentry.conf", "portsentry -c /etc/portsentry/portsentry.conf", "portsentry unban 203.0.113.9")
	p.text("As PortSentry 1.x was started, in one process and not two:")
	p.example("portsentry -stcp -sudp")

	p.section("See also")
	p.text("`portsentry.conf`(5), `nft`(8), `ipset`(8), `hosts_access`(5), `fail2ban-client`(1)")
	return p
}
