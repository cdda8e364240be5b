// Package lab sets the stage for end-to-end tests: hosts in network namespaces
// of their own, the built program, a real nmap. Everything it makes it removes
// when the test ends.
package lab

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
)

// Lab is a scanner and a host on one wire. The host is the machine that
// portsentry protects; to the scanner it is also the way elsewhere.
type Lab struct {
	Net           *pktgen.Net
	Scanner, Host *pktgen.End
	binary        string
}

// Addresses of the two, in every Lab.
var (
	ScannerAddrs = []netip.Prefix{netip.MustParsePrefix("10.77.0.2/16"), netip.MustParsePrefix("fd77::2/64")}
	HostAddrs    = []netip.Prefix{netip.MustParsePrefix("10.77.0.1/16"), netip.MustParsePrefix("fd77::1/64")}
)

// New makes a Lab. Without root it skips the test, in CI it fails it.
func New(t *testing.T) *Lab {
	t.Helper()
	NeedRoot(t)
	t.Log("as root in a network namespace of its own")
	n, err := pktgen.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	l := &Lab{Net: n, binary: Binary(t)}
	scanner, host := l.Space(t), l.Space(t)
	l.Scanner, l.Host = l.Join(t, scanner, host, ScannerAddrs, HostAddrs)
	return l
}

// NeedRoot skips a test that is not run by root; in CI that is a failure.
func NeedRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") == "true":
		t.Fatal("needs root, for network namespaces")
	default:
		t.Skip("needs root, for network namespaces")
	}
}

// NeedProgram skips a test without the program of a Debian package; in CI that is a
// failure.
func NeedProgram(t *testing.T, program, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs %s (Debian package %s)", program, debianPackage)
	}
	t.Skipf("needs %s (Debian package %s)", program, debianPackage)
}

// Space makes one more namespace.
func (l *Lab) Space(t *testing.T) *pktgen.NS {
	t.Helper()
	ns, err := l.Net.NewNS()
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// Join links two namespaces by a veth pair.
func (l *Lab) Join(t *testing.T, a, b *pktgen.NS, addrsA, addrsB []netip.Prefix) (*pktgen.End, *pktgen.End) {
	t.Helper()
	x, y, err := l.Net.Link(a, b, addrsA, addrsB)
	if err != nil {
		t.Fatal(err)
	}
	return x, y
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "portsentry-test-")
	if err != nil {
		return "", err
	}
	return harness.Build(context.Background(), dir)
})

// Binary is the program, built once for all tests of a package. Main removes it.
func Binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Main is for TestMain: it runs the tests with the program built for them, and
// removes it.
func Main(m *testing.M) int {
	if path, err := build(); err == nil { // else the tests say so
		defer os.RemoveAll(filepath.Dir(path))
	}
	return m.Run()
}

// Start runs portsentry on the host with these keys of portsentry.conf, until
// the test ends.
func (l *Lab) Start(t *testing.T, config map[string]string) *harness.Daemon {
	t.Helper()
	return harness.MustStart(t, harness.Options{Binary: l.binary, NS: l.Host.NS, Config: config})
}

// How is the way in which a daemon watches a wire of the lab, as it says so itself.
func How() string {
	if harness.Capture() == "afpacket" {
		return "AF_PACKET"
	}
	return "XDP"
}

// Nmap runs the real nmap in ns and returns what it printed: no name look-ups,
// no host discovery, a bounded time.
func Nmap(t *testing.T, ns *pktgen.NS, args ...string) string {
	t.Helper()
	return Command(t, ns, append([]string{"nmap", "-n", "-Pn", "--max-retries", "1", "--host-timeout", "60s"}, args...)...)
}

// Command runs a program in ns and returns its output; a failure ends the test.
func Command(t *testing.T, ns *pktgen.NS, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var out []byte
	err := ns.Do(func() error {
		var err error
		out, err = exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Wait polls until ok holds, and ends the test when it does not within limit.
func Wait(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within %s", what, limit)
		case <-tick.C:
		}
	}
}
