package selftest_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"portsentry/test/harness"
	"portsentry/test/lab"
)

// in is a command in a named network namespace.
func in(space string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", space}, args...)...)
}

// picture is everything of a machine that a self-test could change: to be called
// where it runs.
func picture(files ...string) (string, error) {
	var b strings.Builder
	for _, args := range [][]string{
		{"nft", "list", "ruleset"}, {"ip", "-d", "link"}, {"ip", "addr"}, {"ip", "route", "show", "table", "all"},
		{"ip", "-6", "route", "show", "table", "all"}, {"ip", "rule"}, {"ipset", "list"}, {"ss", "-tulnH"},
		{"sysctl", "net.ipv4", "net.ipv6.conf"},
	} {
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			return "", fmt.Errorf("%v: %w", args, err)
		}
		fmt.Fprintf(&b, "%v\n%s\n", args, out)
	}
	for _, top := range append([]string{"/sys/fs/bpf"}, files...) {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil {
				fmt.Fprintf(&b, "%s %v %d %v\n", path, info.Mode(), info.Size(), info.ModTime())
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// A machine with a firewall of its own, where a daemon bans and its files are in
// use, is the same afterwards: its rules, links, routes, kernel settings and files.
func TestNothingOfTheMachineChanges(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	files := t.TempDir()
	for name, text := range map[string]string{"history": "old\n", "blocked": "", "ran": "", "ignore": "192.0.2.0/24\n"} {
		check(t, os.WriteFile(filepath.Join(files, name), []byte(text), 0o600))
	}
	config := banning(map[string]string{
		"BLOCK_METHOD": "nftables,route", "IGNORE_FILE": filepath.Join(files, "ignore"),
		"HISTORY_FILE": filepath.Join(files, "history"), "BLOCKED_FILE": filepath.Join(files, "blocked"),
		"KILL_ROUTE": "echo $TARGET$ >> " + filepath.Join(files, "ran"), "KILL_RUN_CMD": "echo $TARGET$ >> " + filepath.Join(files, "ran"),
		"KILL_HOSTS_DENY": "ALL: $TARGET$",
	})
	d := harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: l.Host.NS, Config: config})
	lab.Command(t, l.Host.NS, "nft", "add", "table", "inet", "theirs")
	deny, _ := os.ReadFile("/etc/hosts.deny")
	path := write(t, config, "")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tmp := t.TempDir()
	cmd, out, errs := command(ctx, t, tmp, "-c", path)
	check(t, l.Host.NS.DoApart(func() error {
		before, err := picture(files)
		if err != nil {
			return err
		}
		r, err := ended(cmd.Run(), out, errs)
		if err != nil {
			return err
		}
		if r.code != 0 || !strings.Contains(r.stdout, "not run: KILL_ROUTE, KILL_HOSTS_DENY, KILL_RUN_CMD") {
			t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		after, err := picture(files)
		if before != after {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		return err
	}))
	if now, _ := os.ReadFile("/etc/hosts.deny"); string(now) != string(deny) {
		t.Errorf("hosts.deny has %q", now)
	}
	st, err := d.Status(t.Context())
	check(t, err)
	if st.Bans != 0 {
		t.Errorf("the machine's own daemon has %d bans", st.Bans)
	}
	empty(t, tmp)
	noSpaces(t, cmd.Process.Pid)
}

// Whenever somebody interrupts it, nothing is left behind.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	lab.NeedRoot(t)
	for name, reached := range map[string]func(pid int, tmp string) bool{
		"with the first namespace": func(pid int, _ string) bool { return len(spaces(pid)) > 0 },
		"when the daemon starts":   func(_ int, tmp string) bool { return exists(tmp, "*/stderr") },
		"while it watches":         func(_ int, tmp string) bool { return exists(tmp, "*/portsentry.sock") },
	} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			cmd, out, errs := command(t.Context(), t, tmp, "-c", write(t, banning(nil), ""))
			check(t, cmd.Start())
			lab.Wait(t, limit, "the moment", func() bool { return reached(cmd.Process.Pid, tmp) })
			check(t, cmd.Process.Signal(os.Interrupt))
			r, err := ended(cmd.Wait(), out, errs)
			check(t, err)
			if r.code != 2 || r.stdout != "" || !strings.Contains(r.stderr, "interrupted; nothing is left behind") {
				t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
			}
			empty(t, tmp)
			noSpaces(t, cmd.Process.Pid)
			if left := runs(t, tmp); len(left) > 0 {
				t.Errorf("still running: %v", left)
			}
		})
	}
}

func exists(dir, pattern string) bool {
	found, _ := filepath.Glob(filepath.Join(dir, pattern))
	return len(found) > 0
}

// Even killed it leaves no daemon behind.
func TestKilled(t *testing.T) {
	t.Parallel()
	lab.NeedRoot(t)
	tmp := t.TempDir()
	cmd, _, _ := command(t.Context(), t, tmp, "-c", write(t, banning(nil), ""))
	check(t, cmd.Start())
	lab.Wait(t, limit, "the daemon", func() bool { return exists(tmp, "*/portsentry.sock") })
	check(t, cmd.Process.Signal(syscall.SIGKILL))
	cmd.Wait()
	lab.Wait(t, limit, "the end of the daemon", func() bool { return len(runs(t, tmp)) == 0 })
}
