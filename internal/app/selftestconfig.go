package app

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/judge"
	"portsentry/internal/view/cli"
)

// tryout is a configuration as the self-test runs it.
type tryout struct {
	*config.Config
	notes []string // what is not tested, in sentences
}

const (
	selfConf   = "portsentry.conf"
	selfSocket = "portsentry.sock"
)

// shortestBan is how long a ban lasts in the test at least: it is looked at.
const shortestBan = time.Minute

// tryOut writes c into dir such that a daemon that runs with it touches nothing
// outside dir and runs nothing.
func tryOut(c *config.Config, dir string) (*tryout, error) {
	t := &tryout{}
	keys := map[string]string{
		"LOG_FORMAT": string(config.LogJSON), "RESOLVE_HOST": "0", "INTERFACES": "",
		"IGNORE_FILE": c.IgnoreFile, "HISTORY_FILE": "", "BLOCKED_FILE": "", "SOURCES_FILE": "",
		"DATABASE_FILE": "", "METRICS_LISTEN": "",
	}
	if c.HistoryFile != "" {
		keys["HISTORY_FILE"] = filepath.Join(dir, "history")
	}
	if c.BlockedFile != "" {
		keys["BLOCKED_FILE"] = filepath.Join(dir, "blocked")
	}
	if c.BanTime < shortestBan {
		keys["BAN_TIME"] = "1m"
	}
	if c.BanTimeUnverified < shortestBan {
		keys["BAN_TIME_UNVERIFIED"] = "1m"
	}
	var commands []string
	for _, k := range []struct{ key, value string }{
		{"KILL_ROUTE", c.KillRoute}, {"KILL_ROUTE6", c.KillRoute6}, {"KILL_ROUTE_UNDO", c.KillRouteUndo},
		{"KILL_HOSTS_DENY", c.KillHostsDeny}, {"KILL_RUN_CMD", c.KillRunCmd}, {"KILL_RUN_CMD_UNDO", c.KillRunCmdUndo},
	} {
		keys[k.key] = ""
		if k.value != "" {
			commands = append(commands, k.key)
		}
	}
	alone := ""
	if len(c.BlockMethods) == 0 { // without the commands there is nothing to answer with
		keys["BLOCK_TCP"], keys["BLOCK_UDP"] = "0", "0"
		alone = ", so nobody is banned here"
	}
	if commands != nil && blocks(c) {
		t.notes = append(t.notes, "not run: "+strings.Join(commands, ", ")+", which may reach beyond the namespace"+alone)
	}
	var effective, out bytes.Buffer
	if err := c.WriteEffective(&effective); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(&effective)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		key, _, _ := strings.Cut(line, "=")
		if value, ours := keys[key]; ours {
			line = key + `="` + value + `"`
		}
		out.WriteString(line + "\n")
	}
	path := filepath.Join(dir, selfConf)
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, modesFile), []byte(modeWordsOf(c.Modes)+"\n"), 0o600); err != nil {
		return nil, err
	}
	o := Options{ConfigPath: path}
	tried, _, err := o.load()
	if err != nil {
		return nil, fmt.Errorf("the configuration as it is tested: %w", err)
	}
	t.Config = tried
	if slices.Contains(c.BlockMethods, config.MethodIPSet) && blocks(c) && !t.enforces(judge.Soft, judge.AllProtocols) {
		t.notes = append(t.notes, "not tested: bans by ipset, which rules of yours enforce that are not in the namespace")
	}
	if slices.Contains(c.BlockMethods, config.MethodDryRun) && blocks(c) {
		t.notes = append(t.notes, "bans nobody: BLOCK_METHOD is dryrun")
	}
	return t, nil
}

// modeWordsOf is what portsentry.modes says for m.
func modeWordsOf(m config.Modes) string {
	var words []string
	if m.TCP != config.Unwatched {
		words = append(words, m.TCP.Word(config.Dialect1x, false))
	}
	if m.UDP != config.Unwatched {
		words = append(words, m.UDP.Word(config.Dialect1x, true))
	}
	return strings.Join(words, " ")
}

// enforces reports whether a native method of t keeps somebody out in the test.
func (t *tryout) enforces(s judge.Strength, scope judge.Scope) bool {
	has := func(m config.Method) bool { return slices.Contains(t.BlockMethods, m) }
	if has(config.MethodAuto) || has(config.MethodXDP) || has(config.MethodNftables) {
		return true
	}
	// What a route does covers all protocols and served ports too.
	return has(config.MethodRoute) && s >= judge.Soft && scope == judge.AllProtocols
}

// interfacesTrial looks whether anything of INTERFACES is on this machine; nil
// where the configuration takes all there are. In the test there are others.
func interfacesTrial(c *config.Config) *cli.Trial {
	if len(c.Interfaces) == 0 {
		return nil
	}
	t := &cli.Trial{Event: "trial", Probe: "INTERFACES", Promise: cli.Promise{Seen: cli.Must}}
	var missing []string
	for _, name := range c.Interfaces {
		if _, err := net.InterfaceByName(name); err != nil {
			missing = append(missing, name)
		}
	}
	t.Named = "all there"
	if len(missing) > 0 {
		t.Named = "not there: " + strings.Join(missing, ", ")
	}
	if t.Seen = len(missing) < len(c.Interfaces); !t.Seen {
		t.Broken = "none of them is on this machine, so nothing is watched: " + strings.Join(missing, ", ")
		t.Hint = "name others (ip link shows them), or leave INTERFACES out to watch all"
	}
	return t
}
