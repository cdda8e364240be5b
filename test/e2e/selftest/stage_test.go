package selftest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/view/cli"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// limit is longer than a self-test may take, on a machine that is busy.
const limit = 30 * time.Second

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// banning is a configuration that bans, but for more.
func banning(more map[string]string) map[string]string {
	c := map[string]string{
		"TCP_PORTS": "1,11,2222", "UDP_PORTS": "1,7",
		"BLOCK_METHOD": "auto", "BLOCK_TCP": "1", "BLOCK_UDP": "1",
	}
	maps.Copy(c, more)
	return c
}

// write makes a configuration file of values, watched as modes of 1.x say.
func write(t *testing.T, values map[string]string, modes string) (path string) {
	t.Helper()
	dir := t.TempDir()
	if modes != "" {
		check(t, os.WriteFile(filepath.Join(dir, "portsentry.modes"), []byte(modes+"\n"), 0o600))
	}
	path = filepath.Join(dir, "portsentry.conf")
	check(t, harness.WriteConfig(path, values))
	return path
}

// result is what a self-test said and how it ended.
type result struct {
	stdout, stderr string
	code           int
	trials         []cli.Trial // of --json
}

// command is a self-test whose temporary files are in tmp.
func command(ctx context.Context, t *testing.T, tmp string, args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(ctx, lab.Binary(t), append([]string{"selftest"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "COLUMNS=80")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	t.Cleanup(func() { // one that was killed has left them
		if cmd.Process != nil {
			for _, name := range spaces(cmd.Process.Pid) {
				exec.Command("ip", "netns", "del", filepath.Base(name)).Run()
			}
		}
	})
	return cmd, &out, &errs
}

// selftest runs one to its end and looks that its temporary files are gone.
func selftest(t *testing.T, args ...string) *result {
	t.Helper()
	lab.NeedRoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tmp := t.TempDir()
	cmd, out, errs := command(ctx, t, tmp, args...)
	r, err := ended(cmd.Run(), out, errs)
	check(t, err)
	empty(t, tmp)
	noSpaces(t, cmd.Process.Pid)
	return r
}

func ended(err error, out, errs *bytes.Buffer) (*result, error) {
	r := &result{stdout: out.String(), stderr: errs.String()}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.Exited():
		r.code = exit.ExitCode()
	default:
		return r, fmt.Errorf("%w\n%s%s", err, r.stdout, r.stderr)
	}
	for line := range strings.Lines(r.stdout) {
		var one cli.Trial
		if json.Unmarshal([]byte(line), &one) == nil && one.Event == "trial" {
			r.trials = append(r.trials, one)
		}
	}
	return r, nil
}

// empty looks that nothing is in a folder.
func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range left {
		t.Errorf("%s is left in TMPDIR", e.Name())
	}
}

// spaces are the names of the network namespaces that a process has made.
func spaces(pid int) []string {
	names, _ := filepath.Glob(fmt.Sprintf("/run/netns/ps-%d-*", pid))
	return names
}

func noSpaces(t *testing.T, pid int) {
	t.Helper()
	if left := spaces(pid); len(left) > 0 {
		t.Errorf("namespaces are left: %v", left)
	}
}

// runs are the processes whose arguments have text in them.
func runs(t *testing.T, text string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	check(t, err)
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), text) {
			found = append(found, f)
		}
	}
	return found
}

// of are the trials of a probe.
func (r *result) of(probe string) []cli.Trial {
	return slices.DeleteFunc(slices.Clone(r.trials), func(t cli.Trial) bool { return t.Probe != probe })
}

// kept fails the test unless everything went as promised, and gives how many
// trials promised a ban.
func (r *result) kept(t *testing.T) (bans int) {
	t.Helper()
	if r.code != 0 {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	for i := range r.trials {
		one := &r.trials[i]
		if one.Promise.Banned == cli.Must {
			if bans++; !one.Banned || !one.Released || len(one.Methods) == 0 {
				t.Errorf("%s from %v: %+v", one.Probe, one.Source, one)
			}
		}
		if one.Broken != "" {
			t.Errorf("%s from %v: %s", one.Probe, one.Source, one.Broken)
		}
	}
	return bans
}
