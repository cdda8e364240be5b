package contrib

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// stockRegex is what filter.d/portsentry.conf of fail2ban has had since 0.9.
const stockRegex = `\/<HOST> Port\: [0-9]+ (TCP|UDP) Blocked$`

// lines are all samples as one log would have them, and whom to ban for each.
func lines() (all []string, bans []string) {
	add := func(line, ban string) {
		all, bans = append(all, line), append(bans, ban)
	}
	for _, f := range files {
		add(f.line, f.ban)
	}
	for _, iso := range []bool{false, true} {
		for _, s := range samples {
			add(s.syslog(iso), s.ban)
		}
	}
	return all, bans
}

// TestFilter reads the filter as fail2ban does, as far as that goes in a few
// lines: the date is cut off first, and a prefix of syslog may come then.
func TestFilter(t *testing.T) {
	date := regexp.MustCompile(`^(?:\d{4}-\d\d-\d\dT[0-9:.]+(?:[+-]\d\d:?\d\d)?|\w{3} [ \d]\d [0-9:]{8}|\d{10})`)
	_, text, ok := strings.Cut(contribFile(t, "fail2ban", "filter.d", "portsentry.local"), "\nfailregex = ")
	if !ok {
		t.Fatal("no failregex")
	}
	text, _, _ = strings.Cut(text, "\n\n")
	text = strings.ReplaceAll(text, "%(__prefix_line)s", `\s*(?:\S+ portsentry\[\d+\]: )?`)
	text = strings.ReplaceAll(text, "<ADDR>", `([0-9A-Fa-f:.]+)`)
	var rules []*regexp.Regexp
	for line := range strings.Lines(text) {
		rules = append(rules, regexp.MustCompile(strings.TrimSpace(line)))
	}
	all, bans := lines()
	for i, line := range all {
		rest := strings.Replace(line, date.FindString(line), "", 1)
		got := ""
		for _, rule := range rules {
			if m := rule.FindStringSubmatch(rest); m != nil {
				got += m[1]
			}
		}
		if got != bans[i] {
			t.Errorf("bans %q, want %q, for\n%s", got, bans[i], line)
		}
	}
}

// TestFail2ban asks fail2ban itself, with our files in the places where a person
// would put them.
func TestFail2ban(t *testing.T) {
	if _, err := exec.LookPath("fail2ban-regex"); err != nil {
		missing(t, "fail2ban (apt-get install fail2ban)")
	}
	etc := filepath.Join(t.TempDir(), "fail2ban")
	if err := os.CopyFS(etc, os.DirFS("/etc/fail2ban")); err != nil {
		t.Fatal(err)
	}
	stock, err := os.ReadFile(filepath.Join(etc, "filter.d", "portsentry.conf"))
	if err != nil || !strings.Contains(string(stock), stockRegex) {
		t.Fatalf("fail2ban's own filter is another one than we complete: %v\n%s", err, stock)
	}
	all, bans := lines()
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte(strings.Join(all, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	stockBans := fail2banRegex(t, etc, log)
	for _, name := range []string{"filter.d", "jail.d"} {
		text := contribFile(t, "fail2ban", name, "portsentry.local")
		if err := os.WriteFile(filepath.Join(etc, name, "portsentry.local"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := fail2banRegex(t, etc, log)
	var want []string
	for _, ban := range bans {
		if ban != "" {
			want = append(want, ban)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("bans\n%q, want\n%q", got, want)
	}
	for _, ban := range stockBans {
		if !slices.Contains(got, ban) {
			t.Errorf("the stock filter bans %s, ours does not", ban)
		}
	}
	if len(stockBans) == 0 {
		t.Error("the stock filter found nothing in lines of the 1.x history")
	}

	// The jail, as the server would be told of it.
	dump, err := exec.Command("fail2ban-client", "-c", etc, "-d").CombinedOutput()
	for _, want := range []string{
		"['add', 'portsentry', 'auto']", "['set', 'portsentry', 'maxretry', 1]", "['set', 'portsentry', 'bantime', '1h']",
		"['set', 'portsentry', 'addaction', 'iptables-allports']", "['protocol', 'tcp,udp']", "['start', 'portsentry']",
	} {
		if !strings.Contains(string(dump), want) {
			t.Errorf("the jail: no %s (%v) in\n%s", want, err, dump)
		}
	}
}

// fail2banRegex is the addresses that filter portsentry finds in log, in order.
func fail2banRegex(t *testing.T, etc, log string) []string {
	t.Helper()
	cmd := exec.Command("fail2ban-regex", "-c", etc, "--usedns", "no", "-o", "ip", log, "portsentry")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return strings.Fields(string(out))
}
