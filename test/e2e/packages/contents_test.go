package packages

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestContents: both kinds of package for both machines, as they should be, and
// the same when they are made again.
func TestContents(t *testing.T) {
	needLong(t)
	dir := packages(t, version, "amd64 arm64")
	entries, err := os.ReadDir(dir)
	check(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{
		"Containerfile", "SHA256SUMS", "portsentry-3.0.0-1.aarch64.rpm", "portsentry-3.0.0-1.x86_64.rpm",
		"portsentry_3.0.0_amd64.cdx.json", "portsentry_3.0.0_amd64.deb", "portsentry_3.0.0_arm64.cdx.json",
		"portsentry_3.0.0_arm64.deb", "portsentry_3.0.0_linux_amd64", "portsentry_3.0.0_linux_arm64",
	}
	if !slices.Equal(names, want) {
		t.Fatalf("there are %q", names)
	}
	output(t, dir, "sha256sum", "--strict", "-c", "SHA256SUMS")

	t.Run("again", func(t *testing.T) {
		other := packages(t, version, "amd64 arm64")
		for _, name := range want {
			a, err := os.ReadFile(filepath.Join(dir, name))
			check(t, err)
			b, err := os.ReadFile(filepath.Join(other, name))
			check(t, err)
			if string(a) != string(b) {
				t.Errorf("%s is another one", name)
			}
		}
	})
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch+".deb", func(t *testing.T) { deb(t, filepath.Join(dir, "portsentry_3.0.0_"+arch+".deb"), arch) })
		t.Run(arch+".json", func(t *testing.T) { bill(t, filepath.Join(dir, "portsentry_3.0.0_"+arch+".cdx.json")) })
	}
	for _, arch := range []string{"x86_64", "aarch64"} {
		t.Run(arch+".rpm", func(t *testing.T) { rpm(t, filepath.Join(dir, "portsentry-3.0.0-1."+arch+".rpm")) })
	}
}

// common is what no package may lack.
var common = []string{
	"/usr/sbin/portsentry", "/usr/lib/systemd/system/portsentry.service", "/usr/lib/systemd/system/portsentry-helper.service", "/etc/portsentry/portsentry.conf",
	"/usr/share/man/man8/portsentry.8.gz", "/usr/share/man/man5/portsentry.conf.5.gz",
	"/usr/share/bash-completion/completions/portsentry", "/usr/share/fish/vendor_completions.d/portsentry.fish",
	"/usr/share/doc/portsentry/copyright", "/usr/share/doc/portsentry/CHANGELOG.md", "/usr/share/doc/portsentry/docs/install.md",
	"/usr/share/doc/portsentry/portsentry.cdx.json", "/var/lib/portsentry",
}

func missing(t *testing.T, all []string, want ...string) {
	t.Helper()
	for _, name := range append(want, common...) {
		if !slices.Contains(all, name) {
			t.Errorf("%s is not in it", name)
		}
	}
}

func deb(t *testing.T, path, arch string) {
	if got := output(t, "/", "dpkg-deb", "-f", path, "Package", "Version", "Architecture"); got != "Package: portsentry\nVersion: 3.0.0\nArchitecture: "+arch+"\n" {
		t.Error(got)
	}
	output(t, "/", "dpkg", "--compare-versions", version, "gt", "1.2-14+b1")
	output(t, "/", "dpkg", "--compare-versions", version, "gt", "2.0.7")
	root := t.TempDir()
	output(t, "/", "dpkg-deb", "-R", path, root)
	conffiles, err := os.ReadFile(filepath.Join(root, "DEBIAN", "conffiles"))
	check(t, err)
	if got := strings.Fields(string(conffiles)); !slices.Equal(slices.Sorted(slices.Values(got)), []string{"/etc/init.d/portsentry", "/etc/logrotate.d/portsentry", "/etc/portsentry/portsentry.conf"}) {
		t.Errorf("configuration: %q", got)
	}
	var all []string
	owners := regexp.MustCompile(`(?m)^(\S+) root/root +\d+ 2\S+ \S+ \.(\S*?)/?$`)
	listed := output(t, "/", "dpkg-deb", "-c", path)
	for _, m := range owners.FindAllStringSubmatch(listed, -1) {
		all = append(all, m[2])
		if !slices.Contains([]string{"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"}, m[1]) {
			t.Errorf("%s: %s", m[2], m[1])
		}
	}
	if lines := strings.Count(listed, "\n"); len(all) != lines {
		t.Errorf("%d of %d files are root's", len(all), lines)
	}
	missing(t, all, "/etc/init.d/portsentry", "/usr/share/zsh/vendor-completions/_portsentry", "/usr/share/portsentry/default")
	// What 1.2 had without calling it configuration must not be asked about.
	for _, name := range []string{"/etc/default/portsentry", "/etc/portsentry/portsentry.ignore", "/etc/portsentry/portsentry.ignore.static", "/etc/portsentry/portsentry.modes"} {
		if slices.Contains(all, name) {
			t.Errorf("%s is in it", name)
		}
	}
	said := output(t, "/", "lintian", "--allow-root", "--fail-on", "error,warning", path)
	if strings.TrimSpace(said) != "" {
		t.Log(said)
	}
}

func rpm(t *testing.T, path string) {
	query := func(args ...string) []string {
		return strings.Fields(output(t, "/", append([]string{"rpm", "-qp"}, append(args, path)...)...))
	}
	if got := query("--qf", "%{NAME} %{VERSION}"); !slices.Equal(got, []string{"portsentry", version}) {
		t.Errorf("%q", got)
	}
	missing(t, query("-l"), "/etc/portsentry/portsentry.ignore", "/etc/portsentry/portsentry.modes", "/usr/share/zsh/site-functions/_portsentry")
	// 17 is configuration that is not replaced (RPMFILE_CONFIG and _NOREPLACE).
	got := query("--qf", `[%{FILEFLAGS}:%{FILENAMES}\n]`)
	for _, name := range []string{"/etc/portsentry/portsentry.conf", "/etc/portsentry/portsentry.ignore", "/etc/portsentry/portsentry.modes", "/etc/logrotate.d/portsentry"} {
		if !slices.Contains(got, "17:"+name) {
			t.Errorf("%s would be replaced", name)
		}
	}
}

// bill: every module of the program is in it, with a licence.
func bill(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	check(t, err)
	var b struct {
		Components []struct {
			Name     string
			Licenses []struct{ Expression string }
		}
	}
	check(t, json.Unmarshal(text, &b))
	var names []string
	for _, c := range b.Components {
		names = append(names, c.Name)
		if len(c.Licenses) != 1 || c.Licenses[0].Expression == "" {
			t.Errorf("%s has no licence", c.Name)
		}
	}
	program := strings.NewReplacer("_amd64", "_linux_amd64", "_arm64", "_linux_arm64", ".cdx.json", "").Replace(path)
	for line := range strings.Lines(output(t, "/", "go", "version", "-m", program)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "dep" && !slices.Contains(names, f[1]) {
			t.Errorf("%s is not in it", f[1])
		}
	}
	if !slices.Contains(names, "std") || len(names) < 10 {
		t.Errorf("%q", names)
	}
}
