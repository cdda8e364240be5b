package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// startNAT runs a NAT of this namespace on threads of another.
func startNAT(t testing.TB, poll time.Duration) *NAT {
	t.Helper()
	n, err := NewNAT()
	if err != nil {
		t.Fatal(err)
	}
	n.poll = poll
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, n.Close()); err != nil {
			t.Error(err)
		}
	})
	return n
}

// expectChange waits for a signal and compares State.
func expectChange(t testing.TB, n *NAT, want string) {
	t.Helper()
	select {
	case <-n.Changed():
	case <-time.After(5 * time.Second):
		t.Fatalf("no signal; want %q", want)
	}
	if there, why := n.State(); there != (want != "") || !strings.Contains(why, want) {
		t.Errorf("State() = %v, %q; want %q", there, why, want)
	}
}

func TestNATFollowsRules(t *testing.T) {
	enterSpace(t)
	n := startNAT(t, time.Hour)
	ruleset(t, natChains("ip", "pre tcp dport 80 redirect to :8080"))
	expectChange(t, n, "redirect")
	ruleset(t, "flush chain ip t pre")
	expectChange(t, n, "")
	ruleset(t, "add rule ip t raw tcp dport 80 tproxy to :8080")
	expectChange(t, n, "tproxy")
	ruleset(t, "delete table ip t")
	expectChange(t, n, "")
	ruleset(t, natChains("ip6", "pre tcp dport 80 dnat to fd00::1"))
	expectChange(t, n, "dnat")
	ruleset(t, "flush ruleset")
	expectChange(t, n, "")
}

func TestNATFollowsLegacyTables(t *testing.T) {
	enterSpace(t)
	if _, err := exec.LookPath("iptables-legacy"); err != nil {
		t.Skip("needs iptables-legacy")
	}
	n := startNAT(t, 10*time.Millisecond)
	looks := n.Stats().Looks
	command(t, "iptables-legacy -t nat -A POSTROUTING -j MASQUERADE",
		"iptables-legacy -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1")
	expectChange(t, n, "iptables (legacy) rule in table nat: DNAT")
	command(t, "iptables-legacy -t nat -F PREROUTING")
	expectChange(t, n, "")
	if s := n.Stats(); s.Looks != looks || s.Failed != 0 {
		t.Errorf("%+v, the rules of nftables were looked at %d times before", s, looks)
	}
}

// Bans change elements of our table all the time, and a reload its rules.
func TestNATPassesOverOurTable(t *testing.T) {
	enterSpace(t)
	n := startNAT(t, time.Hour)
	looks := n.Stats().Looks
	news := closingNews(t)
	ruleset(t, ownRules)
	if !news.drain() {
		t.Fatal("no news of a new table")
	}
	shell := nftShell(t)
	for i := range 500 {
		shell(fmt.Sprintf("add element inet portsentry full { 10.1.%d.%d }", i/250, i%250))
	}
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("10.2.%d.%d", i/250, i%250))
	}
	ruleset(t, "add element inet portsentry full { "+strings.Join(many, ", ")+" }")
	eventually(t, "the last element", func() bool {
		return exec.Command("nft", "get element inet portsentry full { 10.1.1.249 }").Run() == nil
	})
	ruleset(t, "flush set inet portsentry full")
	if news.drain() {
		t.Error("elements came through the filter")
	}
	ruleset(t, "add rule inet portsentry pre tcp dport 1 drop")
	ruleset(t, natChains("ip", "pre tcp dport 80 redirect to :8080"))
	expectChange(t, n, "redirect")
	if s := n.Stats(); s.Looks != looks+1 || s.Failed != 0 {
		t.Errorf("%+v, want %d looks", s, looks+1)
	}
	// Elements and a rule in one transaction, and so in one datagram.
	ruleset(t, "add element inet portsentry full { 10.3.0.1 }\nflush chain ip t pre")
	expectChange(t, n, "")
}

func closingNews(t testing.TB) *ruleNews {
	t.Helper()
	news, err := subscribeRules()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { news.close() })
	return news
}

// nftShell makes one transaction of each line.
func nftShell(t testing.TB) func(line string) {
	t.Helper()
	cmd := exec.Command("nft", "-i")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return func(line string) { io.WriteString(in, line+"\n") }
}

func TestNATStormOfRules(t *testing.T) {
	enterSpace(t)
	ruleset(t, natChains("ip", "raw accept"))
	n := startNAT(t, time.Hour)
	looks, start := n.Stats().Looks, time.Now()
	shell := nftShell(t)
	const rules = 1000
	for range rules {
		shell("add rule ip t raw tcp dport 1 drop")
	}
	shell("add rule ip t pre tcp dport 80 redirect to :8080")
	eventually(t, "the rule found", func() bool {
		_, why := n.State()
		return strings.HasSuffix(why, "redirect")
	})
	made, most := n.Stats().Looks-looks, uint64(time.Since(start)/natRest+1)*natTries
	t.Logf("%d transactions in %v: %d looks", rules, time.Since(start), made)
	if made > most {
		t.Errorf("%d looks, want %d at most", made, most)
	}
}

// A ban while the rules are being listed does not spoil the list.
func TestNATWhileBanning(t *testing.T) {
	enterSpace(t)
	ruleset(t, ownRules+manyRules(10_000))
	shell := nftShell(t)
	torn := func() bool {
		why, err := dumpRules()
		if why != "" {
			t.Fatal(why)
		}
		return errors.Is(err, errInterrupted)
	}
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
				shell("add element inet portsentry full { 10.1.1.1 }")
				shell("delete element inet portsentry full { 10.1.1.1 }")
			}
		}
	}()
	defer func() { close(done); <-stopped }()
	eventually(t, "an interrupted list", torn)
	for range 5 {
		expectNAT(t, "")
	}
}
