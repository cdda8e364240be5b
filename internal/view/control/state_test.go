package control

import (
	"encoding/json"
	"math"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"portsentry/internal/view"
)

// A ban is written as encoding/json writes it, whatever is in it.
func TestBansAreWrittenAsJSON(t *testing.T) {
	until := time.Date(2030, 2, 3, 4, 5, 6, 789_000_000, time.FixedZone("", -12_600))
	var none, many uint64 = 0, math.MaxUint64
	plain := view.Ban{
		Prefix: netip.MustParsePrefix("203.0.113.9/32"), Scope: "all", Strength: "soft", Evidence: "E1",
		Since: time.Date(2026, 11, 21, 22, 0, 0, 5, time.UTC), Times: 1, Reason: "syn scan of port 1", Methods: []string{"xdp", "nftables"},
	}
	all := plain
	all.Prefix, all.Until, all.Dropped, all.Alive, all.Note = netip.MustParsePrefix("2001:db8::/56"), &until, &many, true, "hosts.deny <stays>"
	for i, v := 0, reflect.ValueOf(all); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("%s is not tried", v.Type().Field(i).Name)
		}
	}
	bans := []view.Ban{plain, all, {Methods: []string{}}, {Times: -1, Methods: []string{""}, Dropped: &none, Since: time.Now()}}
	for _, reason := range []string{`"`, `\`, "&", "\x00\t\n\x7f", "\x1b[31m", "\xff\xfe", "\u2028 \u202e", "h\u00e9 \U0001f600", "</script>"} {
		odd := plain
		odd.Reason, odd.Scope, odd.Methods = reason, reason, []string{reason, "dryrun"}
		bans = append(bans, odd)
	}
	for i := range bans {
		want, err := json.Marshal(&bans[i])
		if err != nil {
			t.Fatal(err)
		}
		if got := appendBan(nil, &bans[i]); string(got) != string(want) {
			t.Errorf("got\n%s, want\n%s", got, want)
		}
	}
}
