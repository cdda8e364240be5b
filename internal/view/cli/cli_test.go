package cli

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"portsentry/internal/view"
)

var now = time.Date(2026, 11, 21, 9, 30, 0, 0, time.UTC)

// run executes one command line against socket as the program does.
func run(t *testing.T, socket string, args ...string) (stdout string, code int, message string) {
	t.Helper()
	root := &cobra.Command{Use: "portsentry", SilenceErrors: true, SilenceUsage: true}
	path := root.PersistentFlags().String("socket", view.DefaultSocket, "")
	root.AddCommand(Commands(Options{Socket: path, Now: func() time.Time { return now }})...)
	root.SetArgs(append(args, "--socket", socket))
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	if err != nil {
		message = err.Error()
	}
	return out.String(), ExitCode(err), message
}

// serve answers every request by answers["METHOD path"] until the test ends.
func serve(t *testing.T, answers map[string]any) (socket string) {
	t.Helper()
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		switch a := answers[r.Method+" "+r.URL.Path].(type) {
		case nil:
			t.Errorf("asked for %s %s", r.Method, r.URL.Path)
		case view.Refusal:
			w.WriteHeader(http.StatusInternalServerError)
			_ = json.NewEncoder(w).Encode(a)
		case string:
			_, _ = w.Write([]byte(a))
		default:
			_ = json.NewEncoder(w).Encode(a)
		}
	})
}

func serveHTTP(t *testing.T, handle http.HandlerFunc) (socket string) {
	t.Helper()
	t.Setenv("COLUMNS", "")
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handle, ReadHeaderTimeout: time.Second}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return socket
}

func sampleStatus() view.Status {
	lookedAt := now.Add(-4 * time.Second)
	return view.Status{
		Version: "3.0.0", Started: now.Add(-12*24*time.Hour - 3*time.Hour - 5*time.Minute), Config: "/etc/portsentry/portsentry.conf",
		Watching: []view.Watched{{Interface: "eth0", How: "AF_PACKET"}, {Interface: "wg0", How: "AF_PACKET", Why: "no Ethernet header"}},
		TCPPorts: 26, UDPPorts: 21, Methods: []string{"nftables"}, BlockTCP: 1,
		Counters: []view.Counter{
			{Name: "frames_total", Help: "packets looked at", Value: 61204},
			{Name: "ring_dropped_total", Help: "packets the kernel dropped because the ring was full", Value: 0, Loss: true},
			{Name: "log_lost_total", Help: "log lines that could not be written", Value: 1204, Loss: true},
			{Name: "sightings_total", Help: "probes of trap ports", Value: 37},
		},
		Bans: 212, CheckedBans: 212, Enforced: 212, Checked: &lookedAt,
	}
}

func sampleBans() []view.Ban {
	soon, later := now.Add(41*time.Minute+20*time.Second), now.Add(26*time.Hour)
	nft := []string{"nftables"}
	return []view.Ban{
		{Prefix: netip.MustParsePrefix("198.51.100.7/32"), Scope: "tcp", Strength: "limited", Evidence: "E1",
			Since: now.Add(-3 * time.Hour), Times: 1, Reason: "fin to trap port 23, unverified (BLOCK_EVIDENCE=verified)", Methods: []string{"nftables"}},
		{Prefix: netip.MustParsePrefix("203.0.113.9/32"), Scope: "all", Strength: "soft", Evidence: "E1",
			Since: now.Add(-19 * time.Minute), Until: &soon, Times: 2, Reason: "syn to trap port 1, unverified", Methods: nft},
		{Prefix: netip.MustParsePrefix("2001:db8:1111:2222::/64"), Scope: "all", Strength: "full", Evidence: "E2",
			Since: now.Add(-2 * time.Second), Until: &later, Times: 1, Reason: "syn to trap port 1; second address of its /64", Methods: nft},
	}
}

func TestStatus(t *testing.T) {
	healthy, troubled, blind := sampleStatus(), sampleStatus(), sampleStatus()
	healthy.Counters[2].Value = 0
	healthy.BlockTCP, healthy.Methods = 0, nil
	troubled.Problems = []string{"the log at /var/log is full: lines are lost"}
	troubled.BlockUDP, troubled.Enforced = 2, 211
	blind.CheckedBans = 0
	blind.Watching, blind.Counters, blind.Bans, blind.Started = nil, nil, 0, now.Add(-time.Minute)
	blind.Methods = nil

	tests := []struct {
		name    string
		st      view.Status
		columns string
		want    string
	}{
		{"healthy", healthy, "", `active for 12 days, 3 h; watching eth0 (AF_PACKET), wg0 (AF_PACKET: no Ethernet header); 26 TCP, 21 UDP trap ports
lost      nothing
answer    log only (BLOCK_TCP=0, BLOCK_UDP=0)
bans      212 in force
enforced  212 of 212 bans in the kernel, last checked 4 s ago
counted   61,204  packets looked at
              37  probes of trap ports
config    /etc/portsentry/portsentry.conf; portsentry 3.0.0
health    ok
`},
		{"troubled, on a narrow terminal", troubled, "40", `active for 12 days, 3 h; watching eth0
(AF_PACKET), wg0 (AF_PACKET: no Ethernet
header); 26 TCP, 21 UDP trap ports
problem   the log at /var/log is full:
          lines are lost
lost      1,204  log lines that could
                 not be written
answer    TCP: ban (BLOCK_TCP=1), UDP:
          command (BLOCK_UDP=2);
          enforced by nftables
bans      212 in force
enforced  211 of 212 bans in the kernel,
          last checked 4 s ago
counted   61,204  packets looked at
              37  probes of trap ports
config    /etc/portsentry/portsentry.conf;
          portsentry 3.0.0
health    2 things above want a look
`},
		{"blind", blind, "", `active for 1 min, but watching no interface; 26 TCP, 21 UDP trap ports
lost      nothing
answer    TCP: ban (BLOCK_TCP=1), UDP: log only (BLOCK_UDP=0); enforced by nothing
bans      0 in force
counted   nothing yet
config    /etc/portsentry/portsentry.conf; portsentry 3.0.0
health    ok
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			socket := serve(t, map[string]any{"GET /v1/status": tt.st})
			t.Setenv("COLUMNS", tt.columns)
			out, code, message := run(t, socket, "status")
			if d := cmp.Diff(tt.want, out); d != "" || code != 0 {
				t.Errorf("exit %d, %s (-want +got):\n%s", code, message, d)
			}
		})
	}
}

func TestBans(t *testing.T) {
	one := sampleBans()[1:2]
	loose := sampleBans()[1:2]
	loose[0].Methods, loose[0].Reason = nil, "a\x1b[2Jb\n"
	counted, packets := sampleBans(), uint64(12345)
	counted[1].Methods, counted[1].Dropped, counted[1].Alive = []string{"xdp", "nftables"}, &packets, true
	counted[2].Methods, counted[2].Dropped, counted[2].Alive = []string{"xdp"}, new(uint64), true
	tests := []struct {
		name    string
		bans    []view.Ban
		columns string
		args    []string
		want    string
	}{
		{"none", nil, "", nil, "no bans\n"},
		{"three, newest first", sampleBans(), "", nil, `3 bans
who                      cut off from                       ends           since       times  evidence    why
2001:db8:1111:2222::/64  everything                         in 1 day, 2 h  2 s ago     1      verified    syn to trap port 1; second address of its /64
203.0.113.9              new connections                    in 41 min      19 min ago  2      unverified  syn to trap port 1, unverified
198.51.100.7             ports without a service, TCP only  by hand only   3 h ago     1      unverified  fin to trap port 23, unverified (BLOCK_EVIDENCE=verified)
`},
		{"the reason gives way", one, "90", nil, `1 ban
who          cut off from     ends       since       times  evidence    why
203.0.113.9  new connections  in 41 min  19 min ago  2      unverified  syn to trap por...
`},
		{"then columns do", one, "70", nil, `1 ban
who          cut off from     ends       since       why
203.0.113.9  new connections  in 41 min  19 min ago  syn to trap po...
`},
		{"but never the address", sampleBans()[2:], "10", nil, `1 ban
who                      ends
2001:db8:1111:2222::/64  in 1 day, 2 h
`},
		{"exact", one, "", []string{"--exact"}, `1 ban
who          cut off from     ends                  since                 times  evidence    why
203.0.113.9  new connections  2026-11-21T10:11:20Z  2026-11-21T09:11:00Z  2      unverified  syn to trap port 1, unverified
`},
		{"where some are counted", counted, "", nil, `3 bans
who                      cut off from                       ends           since       times  dropped  evidence           why
2001:db8:1111:2222::/64  everything                         in 1 day, 2 h  2 s ago     1      0        verified           syn to trap port 1; second address of its /64
203.0.113.9              new connections                    in 41 min      19 min ago  2      12,345   unverified, alive  syn to trap port 1, unverified
198.51.100.7             ports without a service, TCP only  by hand only   3 h ago     1               unverified         fin to trap port 23, unverified (BLOCK_EVIDENCE=verified)
`},
		{"not enforced, hostile reason", loose, "", nil, `1 ban
who          cut off from           ends       since       times  evidence    why
203.0.113.9  nothing: not enforced  in 41 min  19 min ago  2      unverified  a?[2Jb
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			socket := serve(t, map[string]any{"GET /v1/bans": view.BanList{Bans: tt.bans}})
			t.Setenv("COLUMNS", tt.columns)
			out, code, message := run(t, socket, append([]string{"bans"}, tt.args...)...)
			if d := cmp.Diff(tt.want, out); d != "" || code != 0 {
				t.Errorf("exit %d, %s (-want +got):\n%s", code, message, d)
			}
		})
	}
}

func TestUnban(t *testing.T) {
	bans := sampleBans()
	packets, by := uint64(1204), now.Add(5*time.Minute)
	counted := bans[1]
	counted.Dropped = &packets
	socket := serve(t, map[string]any{
		"DELETE /v1/bans/203.0.113.10":            view.Unbanned{Address: netip.MustParseAddr("203.0.113.10"), Lifted: []view.Ban{counted}},
		"DELETE /v1/bans/203.0.113.9":             view.Unbanned{Address: netip.MustParseAddr("203.0.113.9"), Lifted: bans[1:2]},
		"DELETE /v1/bans/198.51.100.7":            view.Unbanned{Address: netip.MustParseAddr("198.51.100.7"), Lifted: bans[:1]},
		"DELETE /v1/bans/2001:db8:1111:2222::7":   view.Unbanned{Address: netip.MustParseAddr("2001:db8:1111:2222::7"), Lifted: bans[2:]},
		"DELETE /v1/bans/2001:db8:1111:2222::/64": view.Unbanned{Address: netip.MustParseAddr("2001:db8:1111:2222::"), Lifted: bans[2:]},
		"DELETE /v1/bans/198.51.100.0/24":         view.Unbanned{},
		"DELETE /v1/bans/all":                     view.Unbanned{Lifted: bans[:2], Pending: 3, Confirm: &by},
		"DELETE /v1/bans/192.0.2.1":               `{"address":"192.0.2.1","lifted":[]}` + "\n",
		"DELETE /v1/bans/192.0.2.2":               view.Refusal{Message: "netlink: no buffer space", Hint: "try again"},
	})
	const net64 = " is no longer banned (was cut off from everything, 1 day, 2 h left; syn to trap port 1; second address of its /64)\n"
	tests := []struct {
		args    []string
		out     string
		code    int
		message string
	}{
		{[]string{"203.0.113.9"}, "203.0.113.9 is no longer banned (was cut off from new connections, 41 min left, banned 2 times so far; syn to trap port 1, unverified)\n", 0, ""},
		{[]string{"203.0.113.10"}, "203.0.113.9 is no longer banned (was cut off from new connections, 41 min left, banned 2 times so far, 1,204 packets dropped; syn to trap port 1, unverified)\n", 0, ""},
		{[]string{"198.51.100.7/32"}, "198.51.100.7 is no longer banned (was cut off from ports without a service, TCP only, until undone by hand; " +
			"fin to trap port 23, unverified (BLOCK_EVIDENCE=verified))\n", 0, ""},
		{[]string{"2001:db8:1111:2222::/64"}, "2001:db8:1111:2222::/64" + net64, 0, ""},
		{[]string{"2001:DB8:1111:2222::7"}, "2001:db8:1111:2222::/64, with 2001:db8:1111:2222::7 in it," + net64, 0, ""},
		{[]string{"192.0.2.1"}, "", 1, "192.0.2.1 is not banned"},
		{[]string{"192.0.2.1", "--json"}, `{"address":"192.0.2.1","lifted":[]}` + "\n", 1, "192.0.2.1 is not banned"},
		{[]string{"192.0.2.2"}, "", 2, "portsentry says: netlink: no buffer space; try again"},
		{[]string{"192.0.2.2", "--json"}, `{"error":"netlink: no buffer space","hint":"try again"}` + "\n", 2, "portsentry says: netlink: no buffer space; try again"},
		{[]string{"203.0.113.999"}, "", 2, `"203.0.113.999" is no address; give one like 203.0.113.9 or 2001:db8::9`},
		{[]string{"203.0.113.9/24"}, "", 2, `"203.0.113.9/24" names a range by an address in it; did you mean 203.0.113.0/24 or 203.0.113.9?`},
		{[]string{"198.51.100.0/24"}, "", 1, "nobody in 198.51.100.0/24 is banned"},
		{[]string{"all", "--confirm-within", "5m"}, "198.51.100.7 is no longer banned (was cut off from ports without a service, TCP only, until undone by hand; " +
			"fin to trap port 23, unverified (BLOCK_EVIDENCE=verified))\n" +
			"203.0.113.9 is no longer banned (was cut off from new connections, 41 min left, banned 2 times so far; syn to trap port 1, unverified)\n" +
			"they are banned again in 5 min unless you confirm it: portsentry confirm 3\n", 0, ""},
		{[]string{"all", "--confirm-within", "2d"}, "", 2, `--confirm-within: "2d": no change waits for more than a day to be confirmed`},
		{nil, "", 2, "unban takes one address, not 0; for example: portsentry unban 203.0.113.9"},
		{[]string{"192.0.2.1", "192.0.2.2"}, "", 2, "unban takes one address, not 2; for example: portsentry unban 203.0.113.9"},
	}
	for _, tt := range tests {
		out, code, message := run(t, socket, append([]string{"unban"}, tt.args...)...)
		if d := cmp.Diff(tt.out, out); d != "" || code != tt.code || message != tt.message {
			t.Errorf("unban %q: exit %d %q, want %d %q (-want +got):\n%s", tt.args, code, message, tt.code, tt.message, d)
		}
	}
}

// TestCutOff: what a ban drops is what its methods do, and no more.
func TestCutOff(t *testing.T) {
	for _, c := range []struct {
		methods []string
		want    string
	}{
		{nil, "nothing: not enforced"},
		{[]string{"nftables", "route"}, "new connections, TCP only"},
		{[]string{"xdp", "route"}, "new connections, TCP only"},
		{[]string{"ipset"}, "new connections"},
		{[]string{"route", "KILL_RUN_CMD"}, "our answers"},
		{[]string{"dryrun"}, "nothing: a dry run"},
		{[]string{"KILL_ROUTE", "KILL_HOSTS_DENY"}, "what KILL_ROUTE, KILL_HOSTS_DENY does"},
	} {
		if got := cutOff(&view.Ban{Strength: "soft", Scope: "tcp", Methods: c.methods}); got != c.want {
			t.Errorf("%q: %q, want %q", c.methods, got, c.want)
		}
	}
}
