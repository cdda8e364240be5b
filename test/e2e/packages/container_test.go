package packages

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"portsentry/internal/view"
	"portsentry/test/lab"
)

// TestContainer lays out what the Containerfile copies, runs it with the
// capabilities that docs/install.md gives it and nothing else on its disk, and
// has it ban. (No container engine: the root, the mounts and the capabilities are
// what one would give.)
func TestContainer(t *testing.T) {
	needLong(t)
	l := lab.New(t)
	top := filepath.Join("..", "..", "..")
	file, err := os.ReadFile(filepath.Join(top, "packaging", "Containerfile"))
	check(t, err)
	copied := regexp.MustCompile(`(?m)^COPY .*\$\{PROGRAM\} (/\S+)$`).FindStringSubmatch(string(file))
	if copied == nil || !strings.Contains(string(file), "\nFROM scratch\n") || !strings.Contains(string(file), `ENTRYPOINT ["`+copied[1]+`"]`) {
		t.Fatalf("it reads otherwise:\n%s", file)
	}
	doc, err := os.ReadFile(filepath.Join(top, "docs", "install.md"))
	check(t, err)
	line := regexp.MustCompile(`(?m)^ +podman run .*$`).FindString(string(doc))
	given := "-all,+sys_chroot" // to get there
	for _, m := range regexp.MustCompile(`--cap-add (\S+)`).FindAllStringSubmatch(line, -1) {
		given += ",+" + m[1]
	}
	if !strings.Contains(given, "+net_admin") {
		t.Fatalf("no capabilities in %q", line)
	}

	dir, err := os.MkdirTemp("", "scratch-")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	program, err := os.ReadFile(filepath.Join(packages(t, version, "amd64"), "portsentry_"+version+"_linux_amd64"))
	check(t, err)
	conf, err := os.ReadFile(filepath.Join(top, "packaging", "portsentry.conf"))
	check(t, err)
	for name, text := range map[string]string{
		copied[1]:                           string(program),
		"/etc/portsentry/portsentry.conf":   strings.Replace(string(conf), `BLOCK_TCP="0"`, `BLOCK_TCP="1"`, 1),
		"/etc/portsentry/portsentry.ignore": "",
		"/var/lib/portsentry/.":             "",
		"/tmp/.":                            "",
	} {
		check(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		if text != "" || strings.HasSuffix(name, ".ignore") {
			check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
		}
	}
	m := &machine{start(t, dir, l.Host.NS), l, copied[1]}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	check(t, err)
	defer out.Close()
	daemon := m.enter(ctx, []string{"setpriv", "--bounding-set", given, "--inh-caps", "-all"}, copied[1])
	daemon.Stdout, daemon.Stderr = out, out
	check(t, daemon.Start())
	t.Cleanup(func() {
		cancel()
		daemon.Wait()
	})
	m.wait("it answers", func() bool {
		_, err := m.try(copied[1], "status")
		return err == nil
	})
	var s view.Status
	m.wait("it watches", func() bool {
		s = m.status()
		return len(s.Watching) > 0
	})
	if len(s.Problems) > 0 || s.Watching[0].How != lab.How() {
		said, _ := os.ReadFile(out.Name())
		t.Errorf("%+v\n%s", s, said)
	}
	scanned := exec.CommandContext(ctx, "nmap", "-n", "-Pn", "-sS", "-r", "--max-retries", "0", "-p", "1,7", lab.HostAddrs[0].Addr().String())
	check(t, l.Scanner.NS.Do(scanned.Run))
	m.banned(t)
}
