package command

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// Templates are the owner's commands and the hosts.deny line, tokens and all.
// An empty one is not configured.
type Templates struct {
	Route, Route6, RouteUndo string
	HostsDeny                string
	RunCmd, RunCmdUndo       string
}

// TemplatesOf takes the templates from a configuration.
func TemplatesOf(c *config.Config) Templates {
	return Templates{
		Route: c.KillRoute, Route6: c.KillRoute6, RouteUndo: c.KillRouteUndo,
		HostsDeny: c.KillHostsDeny,
		RunCmd:    c.KillRunCmd, RunCmdUndo: c.KillRunCmdUndo,
	}
}

// pick returns the template for a step about a host of the family. Without one,
// why says so for the log.
func (t *Templates) pick(step respond.Step, v6 bool) (template, why string) {
	var key string
	switch step {
	case respond.StepRoute:
		key, template = "KILL_ROUTE", t.Route
		if v6 && t.Route6 != "" {
			return t.Route6, ""
		}
	case respond.StepRouteUndo:
		key, template = "KILL_ROUTE_UNDO", t.RouteUndo
	case respond.StepCommand:
		key, template = "KILL_RUN_CMD", t.RunCmd
	case respond.StepCommandUndo:
		key, template = "KILL_RUN_CMD_UNDO", t.RunCmdUndo
	case respond.StepHostsDeny, respond.StepHostsDenyUndo:
		if t.HostsDeny == "" {
			return "", "KILL_HOSTS_DENY is not set"
		}
		return t.HostsDeny, ""
	}
	switch {
	case template == "":
		return "", key + " is not set"
	case v6 && v4Only(template) && step == respond.StepRoute:
		return "", key + " is for IPv4 only and was not run for an IPv6 host: set KILL_ROUTE6"
	case v6 && v4Only(template):
		return "", key + " is for IPv4 only and was not run for an IPv6 host: use $FAMILY$ in it"
	}
	return template, ""
}

// v4Only reports whether a command line can only mean IPv4 addresses. A script
// of the owner's may well take both, so the doubt is in its favour: v4 only is
// what names a tool of that family, a prefix length or a mask of IPv4 (on an
// IPv6 address, /32 would be an internet provider). $FAMILY$ in it says that it
// handles both.
func v4Only(template string) bool {
	if strings.Contains(template, "$FAMILY$") {
		return false
	}
	if strings.Contains(template, "255.255.255") {
		return true
	}
	for _, after := range strings.Split(template, "$TARGET$/")[1:] {
		digits := len(after) - len(strings.TrimLeft(after, "0123456789"))
		if n, err := strconv.Atoi(after[:digits]); err == nil && n <= 32 {
			return true
		}
	}
	words := strings.Fields(template)
	for len(words) > 0 && (strings.Contains(words[0], "=") || path.Base(words[0]) == "sudo") {
		words = words[1:]
	}
	if len(words) == 0 {
		return false
	}
	switch path.Base(words[0]) {
	case "iptables", "iptables-nft", "iptables-legacy", "ipchains", "ipfwadm":
		return true
	case "route":
		return !slices.Contains(words, "-6") && !slices.Contains(words, "inet6") && !slices.Contains(words, "--inet6")
	}
	return false
}

// tokens are the values of the tokens in a template, and of the environment
// variables of a command: digits, hexadecimal, dots, colons and fixed words,
// nothing that a shell could take for anything else.
func (r *request) tokens() [][2]string {
	proto, evidence, family := "none", "unverified", "4"
	switch r.proto {
	case decode.ProtoTCP:
		proto = "tcp"
	case decode.ProtoUDP:
		proto = "udp"
	}
	if r.evidence >= judge.E2 {
		evidence = "verified"
	}
	if r.host.Is6() {
		family = "6"
	}
	return [][2]string{
		{"TARGET", r.host.String()},
		{"PORT", strconv.Itoa(int(r.port))},
		{"MODE", r.mode.Word(r.dialect, r.proto == decode.ProtoUDP)},
		{"PROTO", proto},
		{"DIRECTION", "none"}, // vertical and horizontal are not told apart yet
		{"KIND", r.kind.String()},
		{"COUNT", strconv.FormatUint(uint64(r.count), 10)},
		{"EVIDENCE", evidence},
		{"FAMILY", family},
	}
}

// expand fills in the tokens of a command's template.
func expand(template string, r *request) string {
	var pairs []string
	for _, t := range r.tokens() {
		pairs = append(pairs, "$"+t[0]+"$", t[1])
	}
	return strings.NewReplacer(pairs...).Replace(template)
}

// expandLine fills in the tokens of the hosts.deny template, where an IPv6
// address stands in brackets (hosts_access(5)).
func expandLine(template string, r *request) string {
	if r.host.Is6() && !strings.Contains(template, "[$TARGET$]") {
		template = strings.ReplaceAll(template, "$TARGET$", "[$TARGET$]")
	}
	return expand(template, r)
}

// environ is the whole environment of a command.
func (r *request) environ() []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, t := range r.tokens() {
		env = append(env, "PORTSENTRY_"+t[0]+"="+t[1])
	}
	return env
}
