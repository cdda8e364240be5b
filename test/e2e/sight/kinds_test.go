package sight_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// serve opens what listens on the host of TestKinds. Every port of it but 16 is
// on the trap lists.
func serve(t *testing.T, ns *pktgen.NS) {
	t.Helper()
	for _, s := range []struct{ network, address string }{
		{"tcp4", "0.0.0.0:6"},
		{"tcp6", "[::]:8"}, // IPv6 only
		{"tcp", "[::]:10"}, // both families
		{"tcp4", "10.77.0.1:12"},
		{"tcp", "[::]:16"},
		{"udp4", "0.0.0.0:7"},
		{"udp6", "[::]:9"},
		{"udp", "[::]:11"},
		{"udp4", "10.77.0.1:13"},
		{"udp", "[::]:16"},
	} {
		listenOn(t, ns, s.network, s.address)
	}
}

// listenOn serves an address in ns until the test ends.
func listenOn(t *testing.T, ns *pktgen.NS, network, address string) {
	t.Helper()
	err := ns.Do(func() error {
		if network[:3] == "udp" {
			c, err := net.ListenPacket(network, address)
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		}
		c, err := (&net.ListenConfig{}).Listen(context.Background(), network, address)
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What of ports 1 to 20 is to be seen in TestKinds, by target.
var (
	tcp4   = []int{2, 3, 4, 8, 14, 20}
	tcp4b  = []int{2, 3, 4, 8, 12, 14, 20}
	tcp6   = []int{2, 3, 4, 6, 12, 14, 20}
	udp4   = []int{2, 3, 4, 9, 20}
	udp4b  = []int{2, 3, 4, 9, 13, 20}
	udp6   = []int{2, 3, 4, 7, 13, 20}
	nobody []int
)

const (
	first  = "10.77.0.1" // as lab.HostAddrs has it
	second = "10.77.0.3"
	inIPv6 = "fd77::1"
	onLink = "fe80::77%eth0"
)

// scans of TestKinds: the arguments of nmap, and what of it is to be seen.
var kinds = []struct {
	args   string
	target string
	kind   string
	ports  []int
}{
	{"-sS", first, "TCP SYN/Normal scan", tcp4},
	{"-sS", second, "TCP SYN/Normal scan", tcp4b},
	{"-sS", inIPv6, "TCP SYN/Normal scan", tcp6},
	{"-sS", onLink, "TCP SYN/Normal scan", tcp6},
	{"-sT", first, "TCP SYN/Normal scan", tcp4},
	{"-sT", inIPv6, "TCP SYN/Normal scan", tcp6},
	{"-sF", first, "TCP FIN scan", tcp4},
	{"-sF", second, "TCP FIN scan", tcp4b},
	{"-sF", inIPv6, "TCP FIN scan", tcp6},
	{"-sN", first, "TCP NULL scan", tcp4},
	{"-sN", inIPv6, "TCP NULL scan", tcp6},
	{"-sX", first, "TCP XMAS scan", tcp4},
	{"-sX", inIPv6, "TCP XMAS scan", tcp6},
	{"-sM", first, "TCP Maimon scan", tcp4},
	{"-sM", inIPv6, "TCP Maimon scan", tcp6},
	{"-sA", first, "TCP ACK/Window scan", tcp4},
	{"-sA", second, "TCP ACK/Window scan", tcp4b},
	{"-sA", inIPv6, "TCP ACK/Window scan", tcp6},
	{"-sW", first, "TCP ACK/Window scan", tcp4},
	{"-sU", first, "UDP", udp4},
	{"-sU", second, "UDP", udp4b},
	{"-sU", inIPv6, "UDP", udp6},
	{"-sU", onLink, "UDP", udp6},

	{"-sS -f", first, "TCP SYN/Normal scan", tcp4},
	{"-sS --mtu 16", first, "TCP SYN/Normal scan", tcp4},
	{"-sX -f", first, "TCP XMAS scan", tcp4},
	{"-sS --ip-options R", first, "TCP SYN/Normal scan", tcp4},
	{"-sU --ip-options R", first, "UDP", udp4},
	{"-sS --ip-options R -f", first, "TCP SYN/Normal scan", tcp4},

	{"-sS --scanflags SYNFIN", first, odd(1, 1, 0, 0), tcp4},
	{"-sS --scanflags PSH", first, odd(0, 0, 1, 0), tcp4},
	{"-sS --scanflags URGFIN", first, odd(0, 1, 0, 1), tcp4},
	{"-sS --scanflags SYNFINURGPSH", first, "TCP XMAS scan", tcp4},
	{"-sS --scanflags SYNECECWR", first, "TCP SYN/Normal scan", tcp4},
	{"-sS --scanflags ECE", first, odd(0, 0, 0, 0), tcp4},
	{"-sF --scanflags RST", first, "", nobody},
	{"-sS --scanflags SYNACK", first, "", nobody},
	{"-sS --badsum", first, "", nobody},
	{"-sS --badsum", inIPv6, "", nobody},
	{"-sU --badsum", first, "", nobody},
	{"-sU --badsum", inIPv6, "", nobody},
	{"-sY", first, "", nobody}, // SCTP
}

// TestKinds scans with nmap, in every way it knows, a range of trap ports, ports
// that are none, and ports that are served in every way a port can be. Every
// probe of a trap is named, and nothing else is. The scans run at the same time,
// each from an address of its own.
func TestKinds(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	addAddress(t, l.Host, second+"/16")
	addAddress(t, l.Host, strings.TrimSuffix(onLink, "%eth0")+"/64")
	// Closed UDP ports answer as fast as they are asked.
	for _, key := range []string{"net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"} {
		if err := l.Host.NS.Sysctl(key, "0"); err != nil {
			t.Fatal(err)
		}
	}
	serve(t, l.Host.NS)
	w, _ := listen(t, l, map[string]string{
		"TCP_PORTS": "2-4,6,8,10,12,14,20", "UDP_PORTS": "2-4,7,9,11,13,20",
	})

	var sources []netip.Addr
	var scans errgroup.Group
	scans.SetLimit(8)
	for i, k := range kinds {
		src := l.Scanner.Addr4()
		args := strings.Fields(k.args)
		v6 := strings.Contains(k.target, ":")
		if v6 {
			src = l.Scanner.Addr6()
			args = append(args, "-6")
		}
		if args[0] != "-sT" { // which is the kernel's to send
			src = netip.AddrFrom4([4]byte{10, 77, 1, byte(i)})
			bits := "/16"
			if v6 {
				src, bits = netip.MustParseAddr(fmt.Sprintf("%s::1:%x", k.target[:4], i)), "/64"
			}
			addAddress(t, l.Scanner, src.String()+bits)
			args = append(args, "-S", src.String(), "-e", l.Scanner.Name)
		}
		sources = append(sources, src)
		scans.Go(func() error { return nmap(t, l.Scanner.NS, append(args, k.target)...) })
	}
	if err := scans.Wait(); err != nil {
		t.Fatal(err)
	}

	seen := slices.Compact(w.scans(t, sources...)) // a probe may be sent twice, but is never two things
	for i, k := range kinds {
		var got, want []string
		for _, line := range seen {
			if strings.HasPrefix(line, harness.ScanPrefix+sources[i].String()+"]") {
				got = append(got, line)
			}
		}
		for _, port := range k.ports {
			want = append(want, scanLine(sources[i], protocol(k.args), port, k.kind, options(k.args, sources[i])))
		}
		slices.Sort(want)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("nmap %s %s (-want +got):\n%s", k.args, k.target, d)
		}
	}
}

// nmap is lab.Nmap for several at a time: ports 1 to 20, and not much patience
// with those that do not answer.
func nmap(t *testing.T, ns *pktgen.NS, args ...string) error {
	args = append([]string{
		"-n", "-Pn", "-p1-20", "--max-retries", "1", "--host-timeout", "60s",
		"--initial-rtt-timeout", "50ms", "--max-rtt-timeout", "200ms",
	}, args...)
	return ns.Do(func() error {
		out, err := exec.CommandContext(t.Context(), "nmap", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("nmap %v: %w\n%s", args, err, out)
		}
		return nil
	})
}

func protocol(args string) string {
	if strings.HasPrefix(args, "-sU") {
		return "UDP"
	}
	return "TCP"
}

// options is what the scan line says about IP options, of which IPv6 has none.
func options(args string, src netip.Addr) string {
	switch {
	case src.Is6():
		return "unknown"
	case strings.Contains(args, "--ip-options"):
		return "set"
	}
	return "not set"
}

// odd is the name of a packet with these flags and no other of the six.
func odd(syn, fin, psh, urg int) string {
	return fmt.Sprintf("Unknown Type: TCP Packet Flags: SYN: %d FIN: %d ACK: 0 PSH: %d URG: %d RST: 0", syn, fin, psh, urg)
}
