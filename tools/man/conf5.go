package main

import (
	"fmt"
	"regexp"
	"strings"

	"portsentry/internal/config"
)

func portsentryConf5() *page {
	p := newPage("portsentry.conf", 5, "what portsentry watches, and what it does about a scanner")

	p.section("Description")
	p.text("portsentry(8) reads `/etc/portsentry/portsentry.conf`, or the file that its option `-c` names, when it starts and on `SIGHUP`. " +
		"Files of PortSentry 1.x and 2.x are read as they are; every key of both may be in one file.\n\n" +
		"A setting is a line `KEY=\"value\"`, with blanks round the equals sign if you like. The value goes to the next quote; what follows is passed over. " +
		"A line that begins with # is a comment. `KEY=\"\"` is as if the key were not there. A key that is set twice to different values is a mistake, as is one that there is not.\n\n" +
		"`portsentry check` says everything that is wrong with a file, and otherwise what is in force. With a mistake nothing starts, and a running daemon keeps the configuration that it has.")

	known := keyNames()
	group := ""
	for _, d := range config.Docs() {
		if d.Group != group {
			group = d.Group
			p.section(group)
		}
		p.item("`"+d.Key+"`", known.ReplaceAllString(entry(d), "`$0`"))
	}

	p.section("The ignore file")
	p.text("One entry a line: an address or network (192.0.2.7, 192.0.2.0/24, 192.0.2.0/255.255.255.0, 2001:db8:7::/48), a DNS name written in full (uptime.example.net), " +
		"or, with GEO_FILES, an autonomous system (AS64496) or a country (country:IS). A # begins a comment anywhere. " +
		"Whoever is in it is written down and never acted on. Whoever controls a name controls who is spared by it.")

	p.section("Examples")
	p.text("Ban for TCP, in the kernel, for ten minutes at first; write down what UDP brings:")
	p.example(`BLOCK_TCP="1"`, `BLOCK_UDP="0"`, `BLOCK_METHOD="auto"`, `BAN_TIME_UNVERIFIED="10m"`)
	p.text("As PortSentry 1.x did on a machine with TCP wrappers:")
	p.example(`BLOCK_TCP="1"`, `KILL_HOSTS_DENY="ALL: $TARGET$"`, `KILL_ROUTE="ip -$FAMILY$ route add blackhole $TARGET$"`, `KILL_ROUTE_UNDO="ip -$FAMILY$ route del blackhole $TARGET$"`)

	p.section("See also")
	p.text("`portsentry`(8), `hosts_access`(5), `nft`(8), `ipset`(8)")
	return p
}

// entry is what is said of a key, the facts first.
func entry(d config.KeyDoc) string {
	def := "not set"
	if d.Default != "" {
		def = `"` + d.Default + `"`
	}
	brief := strings.ToUpper(d.Brief[:1]) + d.Brief[1:]
	return fmt.Sprintf("%s.\n\nValue: %s. Default: %s. Since %s.\n\n%s", brief, d.Values, def, d.Since, d.Text)
}

// keyNames finds the names of keys in text, whole words only.
func keyNames() *regexp.Regexp {
	var names []string
	for _, d := range config.Docs() {
		names = append(names, d.Key)
	}
	return regexp.MustCompile(`\b(` + strings.Join(names, "|") + `)\b`)
}
