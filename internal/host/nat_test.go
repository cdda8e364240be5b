package host

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ruleset applies text as one transaction.
func ruleset(t testing.TB, text string) {
	t.Helper()
	pipe(t, text, "nft", "-f", "-")
}

func pipe(t testing.TB, text string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %.300s", name, err, out)
	}
}

// natChains gives a family the chains that rules of the tests go into.
func natChains(family, rule string) string {
	return fmt.Sprintf(`table %s t {
		chain pre { type nat hook prerouting priority -100; }
		chain post { type nat hook postrouting priority 100; }
		chain raw { type filter hook prerouting priority -300; }
	}
	add rule %s t %s`, family, family, rule)
}

const ownRules = `table inet portsentry {
	set full { type ipv4_addr; }
	chain pre { type filter hook prerouting priority -150; ip saddr @full drop; }
}
`

func TestNATState(t *testing.T) {
	const own = `table inet portsentry { chain a { type nat hook prerouting priority -100; tcp dport 1 redirect to :2; }; }`
	tests := []struct {
		name, rules string
		why         string // "" nothing there
	}{
		{"nothing", "", ""},
		{"ours", ownRules, ""},
		{"ours, whatever it does", own, ""},
		{"of our name in another family", strings.Replace(own, "inet", "ip", 1), "nftables rule in table ip portsentry, chain a: redirect"},
		{"masquerade and snat", natChains("ip", "post oif lo masquerade") + "\nadd rule ip t post ip daddr 10.0.0.1 snat to 10.0.0.2", ""},
		{"filter", natChains("inet", "raw tcp dport 80 counter drop"), ""},
		{"dnat", natChains("ip", "pre tcp dport 80 dnat to 10.0.0.1:8080"), "nftables rule in table ip t, chain pre: dnat"},
		{"dnat by map", natChains("ip", "pre dnat to tcp dport map { 80 : 10.0.0.1, 81 : 10.0.0.2 }"), "nftables rule in table ip t, chain pre: dnat"},
		{"dnat, IPv6", natChains("ip6", "pre tcp dport 80 dnat to [fd00::1]:8080"), "nftables rule in table ip6 t, chain pre: dnat"},
		{"dnat, inet", natChains("inet", "pre tcp dport 80 dnat ip to 10.0.0.1"), "nftables rule in table inet t, chain pre: dnat"},
		{"redirect", natChains("ip", "pre tcp dport 80 redirect to :8080"), "nftables rule in table ip t, chain pre: redirect"},
		{"redirect, IPv6", natChains("ip6", "pre tcp dport 80 redirect to :8080"), "nftables rule in table ip6 t, chain pre: redirect"},
		{"redirect, inet", natChains("inet", "pre tcp dport 80 redirect to :8080"), "nftables rule in table inet t, chain pre: redirect"},
		{"tproxy", natChains("ip", "raw tcp dport 80 tproxy to :8080"), "nftables rule in table ip t, chain raw: tproxy"},
		{"tproxy, IPv6", natChains("ip6", "raw tcp dport 80 tproxy to [::1]:8080"), "nftables rule in table ip6 t, chain raw: tproxy"},
		{"tproxy, inet", natChains("inet", "raw tcp dport 80 tproxy to :8080"), "nftables rule in table inet t, chain raw: tproxy"},
		{"after a rule of ours", ownRules + natChains("ip", "pre tcp dport 80 redirect to :8080"), "nftables rule in table ip t, chain pre: redirect"},
		{"in a chain that is jumped to", natChains("ip", "pre tcp dport 80 jump { dnat to 10.0.0.1; }"), ": dnat"},
		{"stateless address", natChains("ip", "raw ip daddr set 10.0.0.1"), "destination set"},
		{"stateless address, IPv6", natChains("inet", "raw ip6 daddr set fd00::1"), "destination set"},
		{"stateless port", natChains("inet", "raw udp dport set 53"), "destination set"},
		{"other fields set", natChains("inet", "raw tcp sport set 53") + `
			add rule inet t raw ip dscp set cs1
			add rule inet t raw ip6 dscp set cs1
			add rule inet t raw ip ttl set 64
			add rule inet t raw ip saddr set 10.0.0.1
			add rule inet t raw ip6 saddr set fd00::1
			add rule inet t raw tcp flags syn tcp option maxseg size set 1200`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			enterSpace(t)
			ruleset(t, tt.rules)
			expectNAT(t, tt.why)
		})
	}
}

// expectNAT opens a NAT here and compares its State.
func expectNAT(t *testing.T, want string) {
	t.Helper()
	n := closing[*NAT](t)(NewNAT())
	there, why := n.State()
	if there != (want != "") || there != (why != "") || !strings.Contains(why, want) {
		t.Errorf("State() = %v, %q; want %q", there, why, want)
	}
	if s := n.Stats(); s.Failed != 0 {
		t.Errorf("%d looks failed", s.Failed)
	}
}

func TestNATOfIptables(t *testing.T) {
	natRules := []struct {
		name, args, target string // of ip6tables where the name says so; ADDR is an address
	}{
		{"masquerade", "-t nat -A POSTROUTING -j MASQUERADE", ""},
		{"DNAT", "-t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination ADDR", "DNAT"},
		{"REDIRECT", "-t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080", "REDIRECT"},
		{"TPROXY", "-t mangle -A PREROUTING -p tcp --dport 80 -j TPROXY --on-port 8080", "TPROXY"},
		{"NETMAP", "-t nat -A PREROUTING -d ADDR -j NETMAP --to ADDR", "NETMAP"},
		{"mangle", "-t mangle -A PREROUTING -j MARK --set-mark 1", ""},
		{"filter", "-A INPUT -p tcp --dport 80 -j DROP", ""},
	}
	for _, v := range []struct{ binary, address, legacy, nft string }{
		{"iptables-legacy", "10.0.0.1", "iptables (legacy) rule in table ", ""},
		{"ip6tables-legacy", "fd00::1", "ip6tables (legacy) rule in table ", ""},
		{"iptables-nft", "10.0.0.1", "", "nftables rule in table ip "},
		{"ip6tables-nft", "fd00::1", "", "nftables rule in table ip6 "},
	} {
		for _, r := range natRules {
			t.Run(v.binary+" "+r.name, func(t *testing.T) {
				enterSpace(t)
				if _, err := exec.LookPath(v.binary); err != nil {
					t.Skip("needs " + v.binary)
				}
				args := strings.ReplaceAll(r.args, "ADDR", v.address)
				command(t, v.binary+" -N other", v.binary+" "+args)
				want := v.legacy + v.nft
				if r.target == "" {
					want = ""
				}
				expectNAT(t, want)
				if r.target == "" {
					return
				}
				n := closing[*NAT](t)(NewNAT())
				_, why := n.State()
				// The compatibility layer makes native expressions of some targets.
				if !strings.HasSuffix(strings.ToUpper(why), ": "+r.target) {
					t.Errorf("State() says %q, want %s", why, r.target)
				}
			})
		}
	}
}

// Looking must not make tables: a nat table turns connection tracking on.
func TestNATLooksWithoutMaking(t *testing.T) {
	enterSpace(t)
	if _, err := exec.LookPath("iptables-legacy"); err != nil {
		t.Skip("needs iptables-legacy")
	}
	command(t, "iptables-legacy -A INPUT -j ACCEPT")
	expectNAT(t, "")
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil || string(names) != "filter\n" {
		t.Errorf("tables after a look: %q, %v", names, err)
	}
}

func TestNATThatCannotBeSeen(t *testing.T) {
	enterSpace(t)
	n := closing[*NAT](t)(NewNAT())
	n.rules = found("", fmt.Errorf("rules of nftables: %w", unix.EPERM))
	n.conclude()
	if there, why := n.State(); !there || why != "could not be found out: rules of nftables: operation not permitted" {
		t.Errorf("State() = %v, %q", there, why)
	}
	n.other = found("IPVS has virtual services", nil)
	n.conclude()
	if there, why := n.State(); !there || why != "IPVS has virtual services" {
		t.Errorf("State() = %v, %q; what is known says more", there, why)
	}
}

// manyRules is a firewall that hands nothing on.
func manyRules(n int) string {
	var b strings.Builder
	b.WriteString("table ip many {\nchain in {\n")
	for i := range n {
		fmt.Fprintf(&b, "ip saddr 10.%d.%d.%d tcp dport %d counter accept\n", i>>16, i>>8&255, i&255, i%60000+1)
	}
	b.WriteString("}\n}\n")
	return b.String()
}

// BenchmarkNATLook is a look at 10,000 rules.
func BenchmarkNATLook(b *testing.B) {
	enterSpace(b)
	ruleset(b, manyRules(10_000))
	b.ReportAllocs()
	for b.Loop() {
		if why, err := dumpRules(); why != "" || err != nil {
			b.Fatal(why, err)
		}
	}
}

func BenchmarkNATLookLegacy(b *testing.B) {
	enterSpace(b)
	if _, err := exec.LookPath("iptables-legacy-restore"); err != nil {
		b.Skip("needs iptables-legacy-restore")
	}
	var rules strings.Builder
	rules.WriteString("*nat\n")
	for i := range 10_000 {
		fmt.Fprintf(&rules, "-A POSTROUTING -s 10.%d.%d.%d -p tcp --dport 80 -j MASQUERADE\n", i>>16, i>>8&255, i&255)
	}
	rules.WriteString("COMMIT\n")
	pipe(b, rules.String(), "iptables-legacy-restore")
	b.ReportAllocs()
	for b.Loop() {
		if why, err := legacyTables(); why != "" || err != nil {
			b.Fatal(why, err)
		}
	}
}

// BenchmarkNATPoll is what happens every natPoll where nothing is to be seen.
func BenchmarkNATPoll(b *testing.B) {
	enterSpace(b)
	n, err := NewNAT()
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	b.ReportAllocs()
	for b.Loop() {
		n.lookAtOthers()
	}
}
