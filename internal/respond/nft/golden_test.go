package nft

import (
	"flag"
	"net/netip"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/config"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

var update = flag.Bool("update", false, "write the golden rulesets anew")

// What is different each time is listed as these.
var varies = regexp.MustCompile(`packets \d+ bytes \d+`)

// listed gives the table in a namespace as nft lists it, with all counters at zero.
func (l *lab) listed() string {
	return varies.ReplaceAllString(l.command(l.hostName, "nft", "list", "table", "inet", "portsentry"), "packets 0 bytes 0")
}

// lasting is a ban without an end.
func lasting(p string, s judge.Strength) respond.Ban {
	return respond.Ban{Prefix: netip.MustParsePrefix(p), Strength: s}
}

// The ruleset reads back as nft would have written it, and what nft makes of
// the golden text is the same ruleset.
func TestRulesetAsListed(t *testing.T) {
	spare := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("192.0.2.128/25"),
		netip.MustParsePrefix("10.9.0.254/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("::ffff:198.51.100.7/128"),
		netip.MustParsePrefix("255.255.255.255/32")}
	for _, tc := range []struct {
		name string
		edit func(*Options)
		bans []respond.Ban
	}{
		{name: "ban", edit: func(*Options) {}},
		{name: "command", edit: func(o *Options) { o.BlockTCP, o.BlockUDP = config.BlockCommand, config.BlockCommand }},
		{name: "verified", edit: func(o *Options) { o.LimitedOnly = true; o.BlockUDP = config.BlockNone }},
		{name: "served", edit: func(o *Options) { o.TrapServed = true }},
		{name: "connect", edit: func(o *Options) { o.OwnTraps = true; o.TrapsTCP = nil; o.Provisional = 3 * time.Second }},
		{name: "trigger", edit: func(o *Options) { o.KernelTraps = false }},
		{name: "standby", edit: func(o *Options) { o.Standby = true }, bans: []respond.Ban{
			lasting("192.0.2.7/32", judge.Full), lasting("198.51.100.0/24", judge.Soft),
		}},
		{name: "untracked", edit: func(o *Options) { o.Untracked, o.OwnTraps = true, true }},
		{name: "ranges", edit: func(o *Options) { o.KernelTraps = false }, bans: []respond.Ban{
			lasting("192.0.2.0/24", judge.Full), lasting("198.51.100.0/24", judge.Soft), lasting("255.0.0.0/8", judge.Soft),
			lasting("2001:db8:7:700::/56", judge.Full), lasting("2001:db8:8::/48", judge.Soft), lasting("ffff::/16", judge.Soft),
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			o := traps()
			o.TrapsTCP = append(o.TrapsTCP, config.PortRange{First: 60990, Last: 65535})
			o.Spare, o.Peers = spare, []netip.Addr{netip.MustParseAddr("203.0.113.5")}
			tc.edit(&o)
			table := l.open(o)
			if err := table.BanAll(t.Context(), tc.bans); err != nil {
				t.Fatal(err)
			}
			got := l.listed()
			file := "testdata/" + tc.name + ".nft"
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("nft list differs from %s (-want +got):\n%s", file, diff)
			}

			other := newLab(t)
			other.nftFile(string(want))
			again := other.listed()
			if diff := cmp.Diff(again, got); diff != "" {
				t.Errorf("nft's own ruleset from %s differs (-nft +ours):\n%s", file, diff)
			}
		})
	}
}
