package cli

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/view"
)

// samplePackets are packets of every protocol that is rebuilt.
func samplePackets() []view.Packet {
	at := time.Date(2026, 11, 21, 9, 14, 2, 113_000_007, time.UTC)
	v4, v6 := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")
	own4, own6 := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")
	p := func(proto, kind, flags string, port uint16, six bool) view.Packet {
		at = at.Add(time.Millisecond)
		out := view.Packet{
			Time: at, Source: v4, Destination: own4, SourcePort: 40000, DestinationPort: port, Protocol: proto, Kind: kind, Flags: flags,
			TTL: 52, IPID: 0x1234, Text: "trap port",
		}
		if six {
			out.Source, out.Destination, out.IPID = v6, own6, 0
		}
		if proto == "tcp" {
			out.Seq, out.Window = 0xdeadbeef, 1024
		}
		return out
	}
	return []view.Packet{
		p("tcp", "syn", "SYN", 1, false), p("tcp", "xmas", "FIN,PSH,URG", 11, true), p("tcp", "odd", "SYN,ECE,CWR,AE", 23, false),
		p("tcp", "connect", "", 79, false), p("udp", "udp", "", 69, false), p("udp", "udp", "", 69, true),
		p("icmp", "icmp-sweep", "", 0, false), p("icmp", "icmp-timestamp", "", 0, false), p("icmp", "icmp-mask", "", 0, false),
		p("icmpv6", "icmp-sweep", "", 0, true), p("sctp", "sctp-init", "", 9, false), p("sctp", "sctp-cookie", "", 9, true),
		p("ip-47", "ip-protocol", "", 0, false),
	}
}

// tcpdump reads what we write, and finds every checksum right.
func TestPcapIsReadByTcpdump(t *testing.T) {
	tcpdump, err := exec.LookPath("tcpdump")
	if err != nil {
		t.Skip("tcpdump is not installed (scripts/deps)")
	}
	var file bytes.Buffer
	if err := writePcap(&file, samplePackets()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tcpdump, "-n", "-vvv", "-S", "-tttt", "--nano", "-r", "-")
	cmd.Stdin = &file
	cmd.Env = append(cmd.Environ(), "TZ=UTC")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, complaints.String())
	}
	said := string(out)
	for _, want := range []string{
		"2026-11-21 09:14:02.114000007 IP (tos 0x0, ttl 52, id 4660",
		"203.0.113.9.40000 > 10.0.0.5.1: Flags [S], cksum 0x", "seq 3735928559, win 1024, length 0",
		"2001:db8::9.40000 > fd00::5.11: Flags [FPU]", "10.0.0.5.23: Flags [SEW", "10.0.0.5.79: Flags [S]",
		"203.0.113.9.40000 > 10.0.0.5.69: [udp sum ok]", "2001:db8::9.40000 > fd00::5.69: [udp sum ok]",
		"ICMP echo request", "ICMP time stamp query", "ICMP address mask request", "[icmp6 sum ok] ICMP6, echo request",
		"1) [INIT]", "1) [COOKIE ECHO]", "proto GRE (47)",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	for _, bad := range []string{"incorrect", "bad cksum", "wrong", "truncated", "bad length"} {
		if strings.Contains(said, bad) {
			t.Errorf("%q in\n%s", bad, said)
		}
	}
}

// The names of protocols and flags are read as they are written.
func TestPcapNames(t *testing.T) {
	for n := range 256 {
		if got := protocol(view.Proto(uint8(n))); got != uint8(n) && n != 0 {
			t.Errorf("protocol %d is read as %d", n, got)
		}
	}
	for flags := range uint16(512) {
		if got := tcpFlags(view.Flags(flags)); got != flags {
			t.Errorf("%q is read as %#x", view.Flags(flags), got)
		}
	}
	if diff := cmp.Diff(uint16(0x220d), checksum(binary.BigEndian.AppendUint64(nil, 0x0001f203f4f5f6f7))); diff != "" {
		t.Error(diff) // the example of RFC 1071 section 3
	}
}
