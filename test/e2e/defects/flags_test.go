package defects_test

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// 2.x is "active and listening" with -i any, or the name of no interface, and
// sees nothing.
func TestInterfaceFlag(t *testing.T) {
	for _, word := range []string{"any", "ALL", "ALL_NLO", "eth0"} {
		t.Run(word, func(t *testing.T) {
			s := newStage(t)
			s.conf(nil)
			p := s.foreground("-i", word)
			s.probe("tcp", source(1), 11)
			s.waitScan(p.Out, "Scan from: [10.77.8.1]")
		})
	}
	t.Run("none", func(t *testing.T) {
		s := newStage(t)
		s.conf(nil)
		p := s.Start(lab.Binary(t), "-i", "eth")
		lab.Wait(t, patience, "what is missing is said", func() bool {
			return slices.ContainsFunc(s.lines(p.Err), func(l string) bool { return strings.HasPrefix(l, "watching nothing: ") })
		})
		if out := s.lines(p.Out); slices.Contains(out, harness.ReadyLine) {
			t.Errorf("ready with nothing to watch: %q", out)
		}
		if err := strings.Join(s.lines(p.Err), "\n"); !strings.Contains(err, "not there: eth ") {
			t.Errorf("it does not say what is not there:\n%s", err)
		}
	})
}

// -m is taken for the sake of old command lines, and a word that only begins
// like one of its two is a mistake.
func TestMethodFlag(t *testing.T) {
	s := newStage(t)
	s.conf(nil)
	s.Write("/etc/wrong.conf", "nothing starts with this one")
	for _, word := range []string{"rawXYZ", "pcapfoo"} {
		code, said := s.try(lab.Binary(t), "-m", word, "-c", "/etc/wrong.conf")
		if code != 1 || !strings.Contains(said, "-m "+word+": must be pcap or raw") {
			t.Errorf("-m %s: exit code %d: %s", word, code, said)
		}
	}
	for _, word := range []string{"raw", "pcap"} {
		if code := s.foreground("-m", word).Stop(syscall.SIGTERM); code != 0 {
			t.Errorf("-m %s: exit code %d", word, code)
		}
	}
}

// -L shows probes in this host's own name; nobody can make it ban itself by
// them, as 1.2 does. -S makes traps of listed ports that a service has.
func TestLocalAndServiceFlags(t *testing.T) {
	s := newStage(t)
	s.serve("tcp", 15)
	s.conf(map[string]string{"BLOCK_TCP": "1", "BLOCK_METHOD": "nftables", "KILL_RUN_CMD": "echo $TARGET$ >>" + ran})
	send, err := s.lab.Scanner.Sender()
	check(t, err)
	t.Cleanup(func() { send.Close() })
	syn := func(from netip.Addr, port uint16) {
		check(t, send.SendPacket(pktgen.Packet{Src: from, Dst: host, Proto: pktgen.ProtoTCP, SrcPort: 40000, DstPort: port, Flags: pktgen.SYN}))
	}

	p := s.foreground("-L", "-S")
	syn(host, 11)
	s.waitScan(p.Out, "Scan from: [10.77.0.1]", "port: [11]", "ignored: [false] triggered: [true] noblock: [true] blocked: [false]")
	syn(source(1), 15)
	s.waitScan(p.Out, "Scan from: [10.77.8.1]", "port: [15]", "blocked: [true]")
	if got := s.waitFile(ran, 1); !slices.Equal(got, []string{source(1).String()}) {
		t.Errorf("commands were run for %q", got)
	}
	p.Stop(syscall.SIGTERM)

	p = s.foreground()
	syn(host, 11)
	s.waitScan(p.Out, "Scan from: [10.77.0.1]", "ignored: [true]")
	syn(source(2), 15)
	syn(source(2), 11)
	s.waitScan(p.Out, "Scan from: [10.77.8.2]", "port: [11]")
	if text, _ := os.ReadFile(string(p.Out)); strings.Contains(string(text), "port: [15]") {
		t.Errorf("a client of a service is a scanner:\n%s", text)
	}
}

// waitScan waits for a line with all the parts.
func (s *stage) waitScan(out harness.Output, parts ...string) {
	s.t.Helper()
	lab.Wait(s.t, patience, strings.Join(parts, " and "), func() bool {
		return slices.ContainsFunc(s.lines(out), func(l string) bool {
			return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(l, p) })
		})
	})
}
