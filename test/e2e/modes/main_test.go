package modes_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// patience with a machine that does other things too.
const patience = 20 * time.Second

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// daemon is one that can be given another configuration.
type daemon struct {
	*harness.Daemon
	t    *testing.T
	conf string
}

// start runs the program on the host of l with these keys and arguments.
func start(t *testing.T, l *lab.Lab, config map[string]string, args ...string) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := harness.MustStart(t, harness.Options{
		Binary: lab.Binary(t), NS: l.Host.NS, Dir: dir, Config: config, Args: args,
	})
	return &daemon{d, t, filepath.Join(dir, "portsentry.conf")}
}

// reload replaces the configuration and waits for what comes of it: a line of
// out or err with want in it.
func (d *daemon) reload(text, want string) {
	d.t.Helper()
	check(d.t, os.WriteFile(d.conf, []byte(text), 0o600))
	before := d.count(want)
	check(d.t, d.Signal(syscall.SIGHUP))
	lab.Wait(d.t, patience, want, func() bool { return d.count(want) > before })
}

func (d *daemon) count(part string) (n int) {
	d.t.Helper()
	for _, out := range []harness.Output{d.Out, d.Err} {
		all, err := out.Lines()
		check(d.t, err)
		for _, line := range all {
			if strings.Contains(line, part) {
				n++
			}
		}
	}
	return n
}

// reloaded and refused are what comes of a SIGHUP.
const (
	reloaded = "the configuration has been read again and is in force"
	refused  = "the one from before stays in force"
)

// scans are the scan lines so far that have all the parts.
func (d *daemon) scans(parts ...string) []string {
	d.t.Helper()
	all, err := d.Out.Lines()
	check(d.t, err)
	return slices.DeleteFunc(all, func(line string) bool {
		return !strings.HasPrefix(line, harness.ScanPrefix) ||
			slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) })
	})
}

// waitScan waits for a scan line with all the parts.
func (d *daemon) waitScan(parts ...string) string {
	d.t.Helper()
	var found []string
	lab.Wait(d.t, patience, "a scan line with "+strings.Join(parts, " and "), func() bool {
		found = d.scans(parts...)
		return len(found) > 0
	})
	return found[0]
}

// conf is the text of a configuration.
func conf(lines ...string) string { return strings.Join(lines, "\n") + "\n" + harness.CaptureLine() }

// syn is a bare SYN from the scanner to a port of the host.
func syn(l *lab.Lab, port int) pktgen.Packet {
	return pktgen.Packet{
		Src: l.Scanner.Addr4(), Dst: l.Host.Addr4(), Proto: pktgen.ProtoTCP,
		SrcPort: 40000, DstPort: uint16(port), Flags: pktgen.SYN, Seq: 7, Window: 1024,
	}
}

func sender(t *testing.T, e *pktgen.End) *pktgen.Sender {
	t.Helper()
	s, err := e.Sender()
	check(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func port(n int) string { return fmt.Sprintf("port: [%d] ", n) }

func from(a netip.Addr) string { return harness.ScanPrefix + a.String() + "]" }

func (d *daemon) hangup() {
	d.t.Helper()
	check(d.t, d.Signal(syscall.SIGHUP))
}
