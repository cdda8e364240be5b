package sight_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// from sends a SYN to trap port 11 from each source.
func (w *wire) from(t *testing.T, sources ...string) []netip.Addr {
	t.Helper()
	var addrs []netip.Addr
	for _, s := range sources {
		src := netip.MustParseAddr(s)
		addrs = append(addrs, src)
		w.sendPacket(t, w.packet(11, src.Is6(), func(p *pktgen.Packet) { p.Src = src }))
	}
	return addrs
}

// states are source and the four states of scan lines.
func states(lines []string) map[string]string {
	out := make(map[string]string)
	for _, line := range lines {
		src, rest, _ := strings.Cut(strings.TrimPrefix(line, harness.ScanPrefix), "]")
		_, rest, _ = strings.Cut(rest, "] ignored: ")
		out[src] += "ignored: " + rest + "\n"
	}
	return out
}

const (
	isIgnored = "ignored: [true] triggered: [unset] noblock: [unset] blocked: [unset]\n"
	isScanner = "ignored: [false] triggered: [true] noblock: [true] blocked: [false]\n"
	tooFew    = "ignored: [false] triggered: [false] noblock: [unset] blocked: [unset]\n"
)

// TestIgnoreFile has what an ignore file of 1.x or 2.x may hold, and the ways
// in which they misread it.
func TestIgnoreFile(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	path := filepath.Join(t.TempDir(), "portsentry.ignore")
	content := "# those of the office\n" +
		"198.18.0.1\n" +
		"198.18.1.0/24\n" +
		"198.18.2.99/24\n" + // host bits, which 2.x never matched
		"198.18.3.1 # a word about it\n" +
		"\t 198.18.4.1\n" +
		"198.18.5.0/255.255.255.0\n" +
		"198.18.6.1\r\n" +
		"\r\n   \n" +
		"::ffff:198.18.7.1\n" +
		"2001:DB8:1::/48\n" +
		"2001:db8:2::99\n" +
		"127.0.0.1/32\n0.0.0.0\n" + // as PortSentry 1.x shipped it
		"198.18.9.22" // no newline: 2.x read 198.18.9.2
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	w, d := listen(t, l, map[string]string{"TCP_PORTS": "11", "IGNORE_FILE": path})
	want := make(map[string]string)
	for _, s := range []string{
		"198.18.0.1", "198.18.1.0", "198.18.1.255", "198.18.2.1", "198.18.2.99", "198.18.3.1", "198.18.4.1", "198.18.5.5",
		"198.18.6.1", "198.18.7.1", "2001:db8:1::", "2001:db8:1:ffff::1", "2001:db8:2::99", "198.18.9.22",
	} {
		want[s] = isIgnored
	}
	for _, s := range []string{
		"198.18.0.2", "198.18.0.11", "198.18.3.2", "198.18.8.1", "198.18.9.2", "198.18.9.23", "2001:db8:2::98", "2001:db8:3::1",
	} {
		want[s] = isScanner
	}
	var sources []string
	for s := range want {
		sources = append(sources, s)
	}
	slices.Sort(sources)
	if d := cmp.Diff(want, states(w.scans(t, w.from(t, sources...)...))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if s, err := d.Status(t.Context()); err != nil || s.Problems != nil {
		t.Errorf("problems: %q, %v", s.Problems, err)
	}

	// Edits hold within a second, and one more for a busy machine, however they
	// are made.
	const late = 2 * time.Second
	is := func(src, state string) func() bool {
		return func() bool { return states(w.scans(t, w.from(t, src)...))[src] == state }
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(f, "\n198.18.8.0/24")
	f.Close()
	lab.Wait(t, late, "a line that was added", is("198.18.8.1", isIgnored))

	if err := os.WriteFile(path+".new", []byte("198.18.0.2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	lab.Wait(t, late, "a file that was replaced", is("198.18.0.2", isIgnored))
	if !is("198.18.0.1", isScanner)() {
		t.Error("a line that is gone still holds")
	}

	if err := os.WriteFile(path, []byte("198.18.0.300\n198.18.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lab.Wait(t, late, "the good line of a file with a mistake", is("198.18.0.1", isIgnored))
	says(t, d.Err, path+`:1: "198.18.0.300": `)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	lab.Wait(t, late, "no file", is("198.18.0.1", isScanner))
	says(t, d.Err, "nobody is ignored: there is no "+path+" (IGNORE_FILE)")
}

// TestTrigger: SCAN_TRIGGER counts the probes of a source, whatever they probe.
func TestTrigger(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	udp := func(p *pktgen.Packet) { p.Proto, p.Flags = pktgen.ProtoUDP, 0 }
	fin := func(p *pktgen.Packet) { p.Flags = pktgen.FIN }
	for _, c := range []struct {
		trigger string
		want    string // after four probes
	}{
		{"0", isScanner + isScanner + isScanner + isScanner},
		{"1", isScanner + isScanner + isScanner + isScanner},
		{"3", tooFew + tooFew + isScanner + isScanner},
		{"100000", tooFew + tooFew + tooFew + tooFew},
	} {
		t.Run(c.trigger, func(t *testing.T) {
			d := l.Start(t, map[string]string{"TCP_PORTS": "11,13,61001", "UDP_PORTS": "7", "SCAN_TRIGGER": c.trigger})
			w := watch(t, l, d.Out)
			for _, v6 := range []bool{false, true} {
				w.sendPacket(t, w.packet(11, v6, nil))
				w.sendPacket(t, w.packet(7, v6, udp))
				w.sendPacket(t, w.packet(11, v6, nil)) // ports need not be new ones
				w.sendPacket(t, w.packet(13, v6, fin))
			}
			w.scans(t) // waits; their order counts
			var got []string
			for _, line := range lines(t, d.Out) {
				if strings.HasPrefix(line, harness.ScanPrefix) && !strings.Contains(line, fmt.Sprintf("[%d]", lastPort)) {
					got = append(got, line)
				}
			}
			want := map[string]string{l.Scanner.Addr4().String(): c.want, l.Scanner.Addr6().String(): c.want}
			if d := cmp.Diff(want, states(got)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
