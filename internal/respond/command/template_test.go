package command

import (
	"strings"
	"testing"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

func TestExpand(t *testing.T) {
	r := ask(respond.StepRoute, "10.77.0.2")
	const all = "$TARGET$ $PORT$ $MODE$ $PROTO$ $DIRECTION$ $KIND$ $COUNT$ $EVIDENCE$ $FAMILY$"
	for template, want := range map[string]string{
		all:                     "10.77.0.2 23 stealth tcp none syn 3 unverified 4",
		"$TARGET$$TARGET$":      "10.77.0.210.77.0.2",
		"$TARGET $target$ $X$$": "$TARGET $target$ $X$$",
		"":                      "",
	} {
		if got := expand(template, r); got != want {
			t.Errorf("%q: %q, want %q", template, got, want)
		}
	}
	r = ask(respond.StepRoute, "fd77::2")
	r.proto, r.evidence, r.kind = decode.ProtoUDP, judge.E2, 0
	if got, want := expand(all, r), "fd77::2 23 stealth udp none none 3 verified 6"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	want := "PATH=/usr/sbin:/usr/bin:/sbin:/bin PORTSENTRY_TARGET=fd77::2 PORTSENTRY_PORT=23 PORTSENTRY_MODE=stealth PORTSENTRY_PROTO=udp " +
		"PORTSENTRY_DIRECTION=none PORTSENTRY_KIND=none PORTSENTRY_COUNT=3 PORTSENTRY_EVIDENCE=verified PORTSENTRY_FAMILY=6"
	if got := strings.Join(r.environ(), " "); got != want {
		t.Errorf("environment %q", got)
	}
}

// TestModeWords: $MODE$ is the word of the dialect in use, for the protocol that
// was hit.
func TestModeWords(t *testing.T) {
	for _, tt := range []struct {
		modes   config.Modes
		dialect config.Dialect
		proto   uint8
		want    string
	}{
		{config.Modes{TCP: config.Connect, UDP: config.Stealth}, config.Dialect2x, decode.ProtoTCP, "connect"},
		{config.Modes{TCP: config.Connect, UDP: config.Stealth}, config.Dialect2x, decode.ProtoUDP, "stealth"},
		{config.Modes{TCP: config.Advanced, UDP: config.Stealth}, config.Dialect2x, decode.ProtoTCP, "advanced"},
		{config.Modes{TCP: config.Connect, UDP: config.Connect}, config.Dialect1x, decode.ProtoTCP, "tcp"},
		{config.Modes{TCP: config.Connect, UDP: config.Connect}, config.Dialect1x, decode.ProtoUDP, "udp"},
		{config.Modes{TCP: config.Stealth, UDP: config.Stealth}, config.Dialect1x, decode.ProtoTCP, "stcp"},
		{config.Modes{TCP: config.Stealth, UDP: config.Stealth}, config.Dialect1x, decode.ProtoUDP, "sudp"},
		{config.Modes{TCP: config.Advanced, UDP: config.Advanced}, config.Dialect1x, decode.ProtoTCP, "atcp"},
		{config.Modes{TCP: config.Advanced, UDP: config.Advanced}, config.Dialect1x, decode.ProtoUDP, "audp"},
		{config.Modes{TCP: config.Advanced, UDP: config.Advanced}, config.Dialect1x, 0, "none"},
	} {
		c := client(t, serve(t, Templates{RunCmd: ": $MODE$ $KIND$; test $MODE$ = \"$PORTSENTRY_MODE\""}, nil, nil), tt.modes, tt.dialect)
		o := order(host, respond.StepCommand)
		o.Proto, o.Kind = tt.proto, uint8(detect.KindConnect)
		a := do(t, c, o)
		if want := ": " + tt.want + " connect; test " + tt.want + " = \"$PORTSENTRY_MODE\""; a[0].Err != nil || a[0].Text != want {
			t.Errorf("%v, dialect %d, protocol %d: %s, %v", tt.modes, tt.dialect, tt.proto, a[0].Text, a[0].Err)
		}
	}
}

func TestHostsDenyLine(t *testing.T) {
	for _, tt := range []struct{ template, host, want string }{
		{"ALL: $TARGET$", "10.77.0.2", "ALL: 10.77.0.2"},
		{"ALL: $TARGET$ : DENY", "fd77::2", "ALL: [fd77::2] : DENY"},
		{"ALL: [$TARGET$]", "fd77::2", "ALL: [fd77::2]"},
	} {
		if got := expandLine(tt.template, ask(respond.StepHostsDeny, tt.host)); got != tt.want {
			t.Errorf("%q for %s: %q, want %q", tt.template, tt.host, got, tt.want)
		}
	}
}

func TestV4Only(t *testing.T) {
	for template, want := range map[string]bool{
		"/sbin/route add -host $TARGET$ reject":                                      true,
		"route add -host $TARGET$ gw 333.444.555.666":                                true,
		"/sbin/route -A inet6 add $TARGET$ reject":                                   false,
		"/usr/local/bin/iptables -I INPUT -s $TARGET$ -j DROP":                       true,
		"sudo iptables -I INPUT -s $TARGET$ -j DROP":                                 true,
		"LC_ALL=C /sbin/iptables -I INPUT -s $TARGET$ -j DROP":                       true,
		"ip6tables -I INPUT -s $TARGET$ -j DROP":                                     false,
		"/sbin/ipchains -I input -s $TARGET$ -j DENY -l":                             true,
		"/sbin/ipfw add 1 deny all from $TARGET$:255.255.255.255 to any":             true,
		"/sbin/ip route add blackhole $TARGET$":                                      false,
		"/sbin/ip route add blackhole $TARGET$/32":                                   true,
		"/sbin/ip route add blackhole $TARGET$/64":                                   false,
		"/etc/portsentry/block.sh $TARGET$":                                          false,
		"[ $FAMILY$ = 6 ] && ip6tables -I INPUT -s $TARGET$ || iptables -s $TARGET$": false,
		"":     false,
		"A=b":  false,
		"sudo": false,
	} {
		if got := v4Only(template); got != want {
			t.Errorf("%q: %v", template, got)
		}
	}
}

func TestPick(t *testing.T) {
	c := &config.Config{
		KillRoute: "route add $TARGET$", KillRouteUndo: "route del $TARGET$", KillHostsDeny: "ALL: $TARGET$",
		KillRunCmd: "mail $TARGET$",
	}
	four := TemplatesOf(c)
	both := four
	both.Route6 = "route6 $TARGET$"
	for _, tt := range []struct {
		t         Templates
		step      respond.Step
		v6        bool
		want, why string
	}{
		{four, respond.StepRoute, false, c.KillRoute, ""},
		{four, respond.StepRoute, true, "", "set KILL_ROUTE6"},
		{both, respond.StepRoute, true, both.Route6, ""},
		{both, respond.StepRoute, false, c.KillRoute, ""},
		{Templates{Route6: "x"}, respond.StepRoute, false, "", "KILL_ROUTE is not set"},
		{Templates{Route6: "x"}, respond.StepRoute, true, "x", ""},
		{four, respond.StepRouteUndo, false, c.KillRouteUndo, ""},
		{four, respond.StepRouteUndo, true, "", "KILL_ROUTE_UNDO is for IPv4 only"},
		{four, respond.StepHostsDeny, true, c.KillHostsDeny, ""},
		{four, respond.StepHostsDenyUndo, false, c.KillHostsDeny, ""},
		{Templates{}, respond.StepHostsDeny, false, "", "KILL_HOSTS_DENY is not set"},
		{four, respond.StepCommand, true, c.KillRunCmd, ""},
		{four, respond.StepCommandUndo, true, "", "KILL_RUN_CMD_UNDO is not set"},
	} {
		got, why := tt.t.pick(tt.step, tt.v6)
		if got != tt.want || tt.why == "" && why != "" || !strings.Contains(why, tt.why) {
			t.Errorf("step %d, IPv6 %v: %q, %q", tt.step, tt.v6, got, why)
		}
	}
}
