package modes_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// sweep sends one SYN and one datagram to every port from first to last.
func sweep(t *testing.T, l *lab.Lab, send *pktgen.Sender, first, last int) {
	t.Helper()
	var ports []uint16
	for p := first; p <= last; p++ {
		ports = append(ports, uint16(p))
	}
	for _, proto := range []uint8{pktgen.ProtoTCP, pktgen.ProtoUDP} {
		p := syn(l, first)
		p.Proto = proto
		_, err := send.Flood(t.Context(), p, pktgen.FloodOpts{Count: len(ports), Rate: 20_000, DstPorts: ports})
		check(t, err)
	}
}

// mark sends a SYN in another's name to a port that is certainly a trap, and
// waits for its line: everything sent before has been looked at.
func mark(t *testing.T, l *lab.Lab, d *daemon, send *pktgen.Sender, port int) {
	t.Helper()
	p := syn(l, port)
	p.Src = netip.MustParseAddr("10.77.200.1")
	check(t, send.SendPacket(p))
	d.waitScan(from(p.Src))
}

// TestAdvancedBounds: with no exclusion and no service, 1 to N-1 are traps and
// nothing else is, neither 0 nor N nor what lies above.
func TestAdvancedBounds(t *testing.T) {
	l := lab.New(t)
	d := start(t, l, map[string]string{"ADVANCED_PORTS_TCP": "1024", "ADVANCED_PORTS_UDP": "512"}, "--advanced")
	send := sender(t, l.Scanner)
	sweep(t, l, send, 0, 2100)
	mark(t, l, d, send, 1)
	seen := map[string]int{}
	for _, line := range d.scans(from(l.Scanner.Addr4())) {
		seen[strings.Join(strings.Fields(line)[4:8], " ")]++
	}
	want := 0
	for p := 1; p < 1024; p++ {
		want++
		if key := fmt.Sprintf("protocol: [TCP] port: [%d]", p); seen[key] != 1 {
			t.Errorf("%s: %d lines", key, seen[key])
		}
		if p < 512 {
			want++
			if key := fmt.Sprintf("protocol: [UDP] port: [%d]", p); seen[key] != 1 {
				t.Errorf("%s: %d lines", key, seen[key])
			}
		}
	}
	if len(seen) != want {
		t.Errorf("%d ports seen, want %d", len(seen), want)
	}
}

// TestAdvancedExclusions: 300 of them hold, next to a service and with all ports.
func TestAdvancedExclusions(t *testing.T) {
	l := lab.New(t)
	serve(t, l.Host.NS, ":80", "page")
	var excluded []string
	for p := 4; len(excluded) < 300; p += 7 {
		excluded = append(excluded, fmt.Sprint(p))
	}
	d := start(t, l, map[string]string{
		"ADVANCED_PORTS_TCP": "65536", "ADVANCED_EXCLUDE_TCP": strings.Join(excluded, ","), "UDP_PORTS": "7",
	}, "--advanced")
	send := sender(t, l.Scanner)
	p := syn(l, 1)
	var ports []uint16
	for n := 1; n <= 3000; n++ {
		ports = append(ports, uint16(n))
	}
	ports = append(ports, 65535)
	_, err := send.Flood(t.Context(), p, pktgen.FloodOpts{Count: len(ports), Rate: 20_000, DstPorts: ports})
	check(t, err)
	mark(t, l, d, send, 65534)
	lines := strings.Join(d.scans(from(p.Src)), "\n")
	for _, x := range append(excluded, "80") {
		if strings.Contains(lines, "port: ["+x+"] ") {
			t.Errorf("port %s was reported", x)
		}
	}
	inside := 0
	for p := 4; p <= 3000 && inside < 300; p += 7 {
		inside++
	}
	if n, want := strings.Count(lines, "\n")+1, len(ports)-inside-1; n != want {
		t.Errorf("%d ports reported, want %d", n, want)
	}
}

// TestAdvancedServices: a service that starts on a watched port is safe with its
// first packet, also where traps ban in the kernel, and one that has stopped is a
// trap again.
func TestAdvancedServices(t *testing.T) {
	l := lab.New(t)
	d := start(t, l, map[string]string{
		"ADVANCED_PORTS_TCP": "1024", "BLOCK_TCP": "1", "BLOCK_METHOD": "nftables",
	}, "--advanced")
	to := netip.AddrPortFrom(l.Host.Addr4(), 500)
	for range 20 {
		service := serve(t, l.Host.NS, ":500", "page")
		if got := says(t, l.Scanner.NS, to); got != "page" {
			t.Fatalf("the service said %q", got)
		}
		check(t, service.Close())
	}
	if got := d.scans(); len(got) > 0 {
		t.Fatalf("clients of a service were reported:\n%s", strings.Join(got, "\n"))
	}
	// Who had a connection keeps what is served and may be limited, so another asks.
	stranger := syn(l, 500)
	stranger.Src = netip.MustParseAddr("10.77.3.3")
	check(t, sender(t, l.Scanner).SendPacket(stranger))
	d.waitScan(from(stranger.Src), port(500), "blocked: [true]")
}
