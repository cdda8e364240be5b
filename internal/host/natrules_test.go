package host

import (
	"strings"
	"testing"
	"unicode"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func TestHasServices(t *testing.T) {
	const head = "IP Virtual Server version 1.2.1 (size=4096)\n" +
		"Prot LocalAddress:Port Scheduler Flags\n" +
		"  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
	for list, want := range map[string]bool{
		"":                                   false,
		head:                                 false,
		strings.TrimSuffix(head, "\n"):       false,
		head + "TCP  0A000001:0050 wlc \n":   true,
		head + "FWM  00000001 rr \n":         true,
		head + "UDP  [2001:0db8::1]:0035 rr": true,
	} {
		if got := hasServices(list); got != want {
			t.Errorf("hasServices(%q) = %v", list, got)
		}
	}
}

// nested is an attribute.
func nested(kind uint16, values ...[]byte) []byte {
	var v []byte
	for _, p := range values {
		v = append(v, p...)
	}
	b := append(appendAttribute(nil, kind, 4+len(v)), v...)
	return append(b, make([]byte, align4(len(b))-len(b))...)
}

// ruleBody is the body of an NFT_MSG_NEWRULE with one expression.
func ruleBody(family uint8, table, expression string, data ...[]byte) []byte {
	b := []byte{family, 0, 0, 0}
	b = append(b, nested(unix.NFTA_RULE_TABLE, []byte(table+"\x00"))...)
	b = append(b, nested(unix.NFTA_RULE_CHAIN, []byte("pre\x00"))...)
	return append(b, nested(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, nested(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED,
		nested(unix.NFTA_EXPR_NAME, []byte(expression+"\x00")),
		nested(unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, data...)))...)
}

func TestDiversion(t *testing.T) {
	natType := func(v byte) []byte { return nested(unix.NFTA_NAT_TYPE, []byte{0, 0, 0, v}) }
	target := func(name string) []byte { return nested(unix.NFTA_TARGET_NAME, []byte(name+"\x00")) }
	const ip, ip6, inet = unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_INET
	for _, tt := range []struct {
		rule []byte
		want string
	}{
		{ruleBody(ip, "nat", "nat", natType(unix.NFT_NAT_DNAT)), "nftables rule in table ip nat, chain pre: dnat"},
		{ruleBody(ip, "nat", "nat", natType(unix.NFT_NAT_SNAT)), ""},
		{ruleBody(ip, "nat", "nat"), ""},
		{ruleBody(ip, "nat", "masq"), ""},
		{ruleBody(ip6, "nat", "redir"), "nftables rule in table ip6 nat, chain pre: redirect"},
		{ruleBody(inet, "portsentry", "redir"), ""},
		{ruleBody(inet, "portsentry2", "redir"), "nftables rule in table inet portsentry2, chain pre: redirect"},
		{ruleBody(ip, "nat", "target", target("DNAT")), "nftables rule in table ip nat, chain pre: DNAT"},
		{ruleBody(ip, "nat", "target", target("SNAT")), ""},
		{ruleBody(ip, "nat\x1b[2J", "redir"), "nftables rule in table ip nat[2J, chain pre: redirect"},
		{ruleBody(ip, "nat", "redir")[:20], ""},
		{nil, ""},
	} {
		if got := diversion(tt.rule); got != tt.want {
			t.Errorf("%x: %q, want %q", tt.rule, got, tt.want)
		}
	}
}

// Whatever a message holds, the answer ends with what a rule does, and can be
// shown on a terminal.
func FuzzDiversion(f *testing.F) {
	f.Add(ruleBody(unix.NFPROTO_IPV4, "nat", "nat", nested(unix.NFTA_NAT_TYPE, []byte{0, 0, 0, unix.NFT_NAT_DNAT})))
	f.Add(ruleBody(unix.NFPROTO_INET, "portsentry", "redir"))
	f.Add(ruleBody(unix.NFPROTO_IPV6, "t", "target", nested(unix.NFTA_TARGET_NAME, []byte("TPROXY\x00"))))
	f.Add(ruleBody(unix.NFPROTO_INET, "t", "payload", nested(unix.NFTA_PAYLOAD_SREG, []byte{0, 0, 0, 1}),
		nested(unix.NFTA_PAYLOAD_BASE, []byte{0, 0, 0, 2}), nested(unix.NFTA_PAYLOAD_OFFSET, []byte{0, 0, 0, 2}),
		nested(unix.NFTA_PAYLOAD_LEN, []byte{0, 0, 0, 2})))
	f.Fuzz(func(t *testing.T, b []byte) {
		why := diversion(b)
		does := why[strings.LastIndex(why, ": ")+1:]
		switch does {
		case "", " dnat", " redirect", " tproxy", " destination set without connection tracking":
		default:
			if !divertingTarget([]byte(does[1:])) {
				t.Errorf("%x: %q", b, why)
			}
		}
		if strings.ContainsFunc(why, unicode.IsControl) || why != "" && does == "" {
			t.Errorf("%x: %q", b, why)
		}
		concernsRules(b)
	})
}

// legacyEntry is a struct ipt_entry or ip6t_entry with a target.
func legacyEntry(x xtables, name string) []byte {
	target := align4(x.target+4+12) + 8
	b := make([]byte, target+40)
	native.PutUint16(b[x.target:], uint16(target))
	native.PutUint16(b[x.target+2:], uint16(len(b)))
	copy(b[target+xtTargetHead:], name)
	return b
}

func TestLegacyEntries(t *testing.T) {
	for _, x := range legacyKinds() {
		plain := append(legacyEntry(x, ""), legacyEntry(x, "MASQUERADE")...)
		diverting := append(plain[:len(plain):len(plain)], legacyEntry(x, "REDIRECT")...)
		if got, err := x.diverts(plain); got != "" || err != nil {
			t.Errorf("%s: %q, %v", x.name, got, err)
		}
		if got, err := x.diverts(diverting); got != "REDIRECT" || err != nil {
			t.Errorf("%s: %q, %v", x.name, got, err)
		}
		if got, err := x.diverts(plain[:len(plain)-1]); got != "" || err == nil {
			t.Errorf("%s, cut off: %q, %v", x.name, got, err)
		}
	}
}

// Whatever a table holds, the search ends, and finds only what it knows.
func FuzzLegacyEntries(f *testing.F) {
	for _, x := range legacyKinds() {
		f.Add(append(legacyEntry(x, ""), legacyEntry(x, "DNAT")...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, x := range legacyKinds() {
			if name, err := x.diverts(b); name != "" && (err != nil || !divertingTarget([]byte(name))) {
				t.Errorf("%q, %v", name, err)
			}
		}
	})
}

// The filter takes a datagram if one of its messages changes rules, or if it
// holds as many messages as the filter walks.
func FuzzRulesOnly(f *testing.F) {
	f.Add([]byte{unix.NFT_MSG_NEWSETELEM, 40})
	f.Add([]byte{unix.NFT_MSG_NEWSETELEM, 41, unix.NFT_MSG_NEWRULE, 200})
	f.Add([]byte{30, 7, 15, 0, nftDestroyRule, 3})
	f.Add([]byte(strings.Repeat("\x0c\x09", filteredMessages-1) + "\x06\x01"))
	f.Add([]byte(strings.Repeat("\x0c\xff", filteredMessages-1)))
	f.Add([]byte(strings.Repeat("\x0c\x01", filteredMessages)))
	vm, err := bpf.NewVM(rulesOnly())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, plan []byte) { // kind and length of each message
		var datagram []byte
		messages, want := 0, false
		for ; len(plan) >= 2 && messages < 2*filteredMessages; plan = plan[2:] {
			m := newRequest(unix.NFNL_SUBSYS_NFTABLES<<8|uint16(plan[0]), 0, nfgenSize+2*int(plan[1]))
			datagram = append(datagram, append(m, make([]byte, align4(len(m))-len(m))...)...)
			want = want || changesRules(plan[0]) || messages == filteredMessages-1
			messages++
		}
		got, err := vm.Run(datagram)
		if err != nil || got != 0 != want {
			t.Errorf("%d messages, %d bytes: %d, %v; want %v", messages, len(datagram), got, err, want)
		}
	})
}
