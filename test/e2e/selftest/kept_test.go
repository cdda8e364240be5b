package selftest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"portsentry/internal/view/cli"
	"portsentry/packaging"
)

// seenAs is how every probe is named in stealth mode, as JSON has it, "" not at all.
var seenAs = map[string]string{
	"SYN": "syn", "connect": "syn", "FIN": "fin", "NULL": "null", "XMAS": "xmas", "Maimon": "maimon", "ACK": "ack",
	"odd flags": "odd", "UDP": "udp", "SYN in fragments": "syn", "SYN with options": "syn", "bad checksum": "",
	"as the gateway": "syn", "as a client": "syn", "SYN to a service": "", "FIN to a service": "", "ACK to a service": "",
}

// named looks that every probe was seen from IPv4 and from IPv6, and how.
func (r *result) named(t *testing.T) {
	t.Helper()
	for probe, kind := range seenAs {
		trials := r.of(probe)
		if len(trials) != 2 {
			t.Errorf("%s: %d trials", probe, len(trials))
		}
		for _, one := range trials {
			if one.Kind != kind || one.Seen != (kind != "") || one.Promise.Seen == cli.NotAsked {
				t.Errorf("%s from %v: %+v", probe, one.Source, one)
			}
		}
	}
}

// The shipped file logs only: everything is seen and named, and nobody is banned.
func TestShippedConfiguration(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "portsentry.conf")
	check(t, os.WriteFile(path, packaging.Config(), 0o600))
	r := selftest(t, "-c", path, "--json")
	if bans := r.kept(t); bans > 0 {
		t.Errorf("%d bans are promised", bans)
	}
	r.named(t)
}

// Whatever it is that bans, it does so and lets in again.
func TestBans(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		more  map[string]string
		bans  int
		by    string // of a SYN
		mutes string
	}{
		{"xdp and nftables", nil, 22, "xdp nftables", "served ports"},
		{"nftables", map[string]string{"BLOCK_METHOD": "nftables"}, 22, "nftables", "served ports"},
		{"xdp", map[string]string{"BLOCK_METHOD": "xdp"}, 22, "xdp", "served ports"},
		{"route", map[string]string{"BLOCK_METHOD": "route"}, 18, "route", "served ports"}, // none for what spares served ports
		{"each protocol by itself", map[string]string{"BLOCK_TCP": "2", "BLOCK_UDP": "2"}, 22, "xdp nftables", "served ports"},
		{"TCP alone", map[string]string{"BLOCK_UDP": "0"}, 20, "xdp nftables", "served ports"},
		{"verified alone", map[string]string{"BLOCK_EVIDENCE": "verified"}, 22, "xdp nftables", "closed ports"},
		{"third hit", map[string]string{"SCAN_TRIGGER": "3"}, 22, "xdp nftables", "served ports"},
		{"short", map[string]string{"BAN_TIME": "1s", "BAN_TIME_UNVERIFIED": "1s"}, 22, "xdp nftables", "served ports"},
		{"dry run", map[string]string{"BLOCK_METHOD": "dryrun"}, 0, "", ""},
		{"by packet ring", map[string]string{"CAPTURE": "afpacket", "BLOCK_METHOD": "nftables"}, 22, "nftables", "served ports"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := selftest(t, "-c", write(t, banning(c.more), ""), "--json")
			if bans := r.kept(t); bans != c.bans {
				t.Errorf("%d bans are promised, want %d", bans, c.bans)
			}
			r.named(t)
			for _, one := range r.of("SYN") {
				if got := strings.Join(one.Methods, " "); c.bans > 0 && (got != c.by || one.Silent != c.mutes) {
					t.Errorf("banned by %q, which silences %s", got, one.Silent)
				}
			}
			for _, one := range slices.Concat(r.of("as the gateway"), r.of("as a client"), r.of("bad checksum"), r.of("SYN to a service")) {
				if one.Promise.Banned != cli.MustNot || one.Banned {
					t.Errorf("%s: %+v", one.Probe, one)
				}
			}
		})
	}
}

// Who completes a handshake is verified, where trap ports take connections and
// where the kernel challenges.
func TestVerified(t *testing.T) {
	t.Parallel()
	challenge := banning(map[string]string{"VERIFY_SOURCE": "1", "CAPTURE": "auto"})
	for name, path := range map[string]string{
		"connect mode": write(t, banning(nil), "tcp udp"),
		"challenge":    write(t, challenge, ""),
	} {
		t.Run(name, func(t *testing.T) {
			r := selftest(t, "-c", path, "--json")
			r.kept(t)
			if len(r.of("connect")) != 2 {
				t.Fatal("no trials")
			}
			for _, one := range r.of("connect") {
				if one.Kind != "connect" || one.Evidence != "E2" || !one.Banned || !one.Released {
					t.Errorf("%+v", one)
				}
			}
		})
	}
}

// What is not watched is not asked for, and shown.
func TestNotAskedFor(t *testing.T) {
	t.Parallel()
	r := selftest(t, "-c", write(t, banning(nil), "stcp"))
	if r.code != 0 {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if !strings.Contains(r.stdout, fmt.Sprintf("\n%-16s  -     not asked for", "UDP")) {
		t.Errorf("UDP is not watched:\n%s", r.stdout)
	}
}

// The table is for people: it fits, and says in the end whether all is well.
func TestTable(t *testing.T) {
	t.Parallel()
	r := selftest(t, "-c", write(t, banning(nil), ""))
	if r.code != 0 || r.stderr != "" || strings.Contains(r.stdout, "\x1b") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	for line := range strings.Lines(r.stdout) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, part := range []string{
		"\nprobe             seen  named                evidence  banned         released\n",
		"\nXMAS              yes   TCP XMAS scan        E1        xdp, nftables  yes\n",
		"\nACK               yes   TCP ACK/Window scan  E1        closed ports   yes\n",
		"\n34 of 34 as promised, ",
	} {
		if !strings.Contains(r.stdout, part) {
			t.Errorf("no %q in\n%s", part, r.stdout)
		}
	}
}
