package kinds_test

import (
	"errors"
	"net/netip"
	"os/exec"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// idle is a stage with a third machine, the zombie, on a switch with the others.
type idle struct {
	*stage
	zombie *pktgen.End
	eye    *eye // of the zombie's
}

// newIdle makes the zombie. Linux sends RSTs without IP ID, and nmap wants one that
// grows by one with each packet, whoever it goes to. So the zombie's kernel keeps
// quiet, and what it says of packets that nobody asked for is said here.
func newIdle(t *testing.T) *idle {
	t.Helper()
	lab.NeedRoot(t)
	n, err := pktgen.NewNet()
	check(t, err)
	t.Cleanup(func() { check(t, n.Close()) })
	space := func() *pktgen.NS {
		ns, err := n.NewNS()
		check(t, err)
		return ns
	}
	s := &idle{stage: &stage{t: t, net: n}}
	middle := space()
	lab.Command(t, middle, words("ip link add switch up type bridge")...)
	join := func(address string) *pktgen.End {
		end, port, err := n.Link(space(), middle, []netip.Prefix{netip.MustParsePrefix(address)}, nil)
		check(t, err)
		lab.Command(t, middle, "ip", "link", "set", port.Name, "master", "switch")
		return end
	}
	s.scanner, s.host, s.zombie = join("10.77.0.2/16"), join("10.77.0.1/16"), join("10.77.0.3/16")
	ends := []*pktgen.End{s.scanner, s.host, s.zombie}
	for _, e := range ends {
		for _, other := range ends {
			if e != other {
				check(t, e.Neighbour(other))
			}
		}
	}
	s.open()
	s.stage.eye, s.eye = watch(t, s.host), watch(t, s.zombie)
	lab.Command(t, s.zombie.NS, "nft", "add table ip mute; add chain ip mute in { type filter hook input priority 0; policy drop; }")
	s.haunt()
	return s
}

// haunt is what the zombie says (RFC 9293 section 3.10.7.1).
func (s *idle) haunt() {
	in := watch(s.t, s.zombie)
	out := make(map[netip.Addr]*pktgen.Sender)
	for _, e := range []*pktgen.End{s.scanner, s.host} {
		check(s.t, s.zombie.NS.Do(func() (err error) {
			out[e.Addr4()], err = pktgen.OpenSender(s.zombie.Name, pktgen.Link{Src: s.zombie.MAC, Dst: e.MAC})
			return err
		}))
	}
	var stop atomic.Bool
	ended := make(chan error, 1)
	go func() { ended <- in.haunt(out, &stop) }()
	s.t.Cleanup(func() {
		stop.Store(true)
		check(s.t, <-ended)
		for _, o := range out {
			check(s.t, o.Close())
		}
	})
}

func (y *eye) haunt(out map[netip.Addr]*pktgen.Sender, stop *atomic.Bool) error {
	var d decode.Decoder
	var p decode.Probe
	frame := make([]byte, 1<<12)
	poll := []unix.PollFd{{Fd: int32(y.socket), Events: unix.POLLIN}}
	for id := uint32(1000); !stop.Load(); {
		n, _, err := unix.Recvfrom(y.socket, frame, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			unix.Poll(poll, 10)
			continue
		}
		if err != nil {
			return err
		}
		f := capture.Frame{Data: frame[:n], WireLen: n, Link: capture.LinkEthernet, Time: 1}
		if d.Decode(&f, &p) != decode.Complete || p.Proto != decode.ProtoTCP || p.Dst != y.end.Addr4() || out[p.Src] == nil || p.Flags&decode.RST != 0 {
			continue
		}
		id++
		rst := pktgen.Packet{
			Src: p.Dst, Dst: p.Src, Proto: pktgen.ProtoTCP, SrcPort: p.DstPort, DstPort: p.SrcPort,
			Flags: pktgen.RST, Seq: p.Ack, IPID: id,
		}
		if p.Flags&decode.ACK == 0 {
			rst.Flags, rst.Seq, rst.Ack = pktgen.RST|pktgen.ACK, 0, p.Seq+1
		}
		if err := out[p.Src].SendPacket(rst); err != nil {
			return err
		}
	}
	return nil
}

// An idle scan is the zombie's as far as its target can see. The zombie sees that
// somebody watches it.
func TestIdle(t *testing.T) {
	lab.NeedProgram(t, "nmap", "nmap")
	t.Parallel()
	s := newIdle(t)
	said := s.command(s.scanner, words("timeout 60 nmap -n -Pn -sI 10.77.0.3 -p20-40 "+host4)...)
	t.Log(said)
	zombie, scanner := s.zombie.Addr4().String(), s.scanner.Addr4().String()
	scans, campaigns, notices := replay(t, s.stage.eye.capture(s.scanner))
	if len(scans) != 1 || len(campaigns)+len(notices) > 0 || scans[0].Source != zombie ||
		scans[0].Kind != "syn" || scans[0].Ports != 21 || scans[0].Direction != "vertical" || scans[0].Tool != "nmap" || scans[0].Evidence != "E1" {
		t.Errorf("at the target: scans %+v, campaigns %+v, notices %+v; want one unproved SYN scan of 21 ports by %s", scans, campaigns, notices, zombie)
	}
	scans, campaigns, notices = replay(t, s.eye.capture(s.scanner))
	if len(scans)+len(campaigns) > 0 || len(notices) != 1 || notices[0].What != "zombie" || notices[0].Victim != scanner {
		t.Errorf("at the zombie: scans %+v, campaigns %+v, notices %+v; want one notice that %s watches", scans, campaigns, notices, scanner)
	}
}

// A zombie that is a Linux host is no use to nmap, and sees the attempt.
func TestIdleAttempt(t *testing.T) {
	lab.NeedProgram(t, "nmap", "nmap")
	t.Parallel()
	s := newStage(t)
	s.settle()
	err := s.scanner.NS.Do(func() error {
		return exec.CommandContext(t.Context(), "timeout", words("60 nmap -n -Pn -p80 -sI "+host4+" 10.88.0.2")...).Run()
	})
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		t.Fatalf("nmap: %v; want it to give up", err)
	}
	scans, campaigns, notices := replay(t, s.eye.capture(s.scanner))
	if me := s.scanner.Addr4().String(); len(scans)+len(campaigns) > 0 || len(notices) != 1 || notices[0].What != "zombie" || notices[0].Victim != me {
		t.Errorf("scans %+v, campaigns %+v, notices %+v; want one notice that %s watches", scans, campaigns, notices, me)
	}
}
