package defects_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"portsentry/test/lab"
)

// resolver answers the machine's questions for the names of the scanner's
// addresses: with nothing where the name is "silent".
func (s *stage) resolver(names map[netip.Addr]string) {
	s.t.Helper()
	at := netip.AddrPortFrom(source(253), 53)
	var c net.PacketConn
	check(s.t, s.lab.Scanner.NS.Do(func() (err error) {
		c, err = net.ListenPacket("udp4", at.String())
		return err
	}))
	s.t.Cleanup(func() { c.Close() })
	s.Write("/etc/resolv.conf", "nameserver "+at.Addr().String()+"\n")
	byQuestion := make(map[string]string)
	for a, name := range names {
		b := a.As4()
		byQuestion[fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa.", b[3], b[2], b[1], b[0])] = name
	}
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if a := answer(b[:n], byQuestion); a != nil {
				c.WriteTo(a, from)
			}
		}
	}()
}

// answer is the reply to a question, nil for none.
func answer(question []byte, names map[string]string) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true}, Questions: m.Questions}
	switch name := names[q.Name.String()]; name {
	case "silent":
		return nil
	case "":
		reply.RCode = dnsmessage.RCodeNameError
	default:
		reply.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET, TTL: 60},
			Body:   &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(name)},
		}}
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// A name is shown, and nothing else is done with it. In 1.2 the name that
// 10.77.8.3 chose kept 10.77.8.2 from ever being blocked, another one let its
// commands run with each packet, and a third wrote into log and files; 2.x shows
// no name at all.
func TestNamesDecideNothing(t *testing.T) {
	s := newStage(t)
	s.resolver(map[netip.Addr]string{
		source(2): "two.example.",
		source(3): "10.77.8.2-x.evil.",
		source(4): "10.77.8.45.evil.",
		source(6): "evil.10.77.8.2.",
		source(7): "x/10.77.8.9\nattackalert:.evil.",
	})
	s.conf(map[string]string{"RESOLVE_HOST": "1", "BLOCK_TCP": "1", "KILL_ROUTE": "echo $TARGET$ >>" + ran})
	s.detach(lab.Binary(t), "-stcp")
	var want []string
	for _, n := range []byte{3, 4, 2, 6, 7} {
		s.probe("tcp", source(n), 11)
		want = append(want, source(n).String())
		s.waitFile(ran, len(want))
		s.log.Wait(patience, "/"+source(n).String()+" to TCP port: 11")
	}
	for range 3 {
		s.probe("tcp", source(4), 15)
	}
	lab.Wait(t, patience, "the probes of a blocked host", func() bool { return len(s.alerts("/10.77.8.4 is already blocked")) == 3 })
	if got := s.waitFile(ran, len(want)); !slices.Equal(got, want) {
		t.Errorf("commands were run for %q, want %q", got, want)
	}
	for n, name := range map[byte]string{2: "two.example", 3: "10.77.8.3", 6: "10.77.8.6", 7: "10.77.8.7"} {
		label := fmt.Sprintf("%s/%s", name, source(n))
		if got := s.alerts(" from host: " + label + " to TCP port: 11"); len(got) != 1 {
			t.Errorf("%d alerts about %s: %q", len(got), label, s.alerts(source(n).String()))
		}
	}
	for _, file := range []string{"portsentry.blocked.stcp", "portsentry.history"} {
		lines := s.waitFile(state+file, len(want))
		for i, line := range lines {
			if !strings.HasSuffix(line, fmt.Sprintf("/%s Port: 11 TCP Blocked", want[i])) || strings.Contains(line, "evil") {
				t.Errorf("%s: %q", file, line)
			}
		}
	}
	if lines := s.waitFile(state+"portsentry.history", len(want)); !strings.Contains(lines[2], " Host: two.example/10.77.8.2 ") {
		t.Errorf("no name in the history: %q", lines)
	}
	s.stop()
	s.detach(lab.Binary(t), "-stcp")
	if bans := s.Run(lab.Binary(t), "bans"); !strings.Contains(bans, "10.77.8.2") || strings.Contains(bans, "10.77.8.45") {
		t.Errorf("after another start:\n%s", bans)
	}
}

// A resolver that says nothing holds nothing up: 1.2 looks up one name after the
// other, between two packets.
func TestSilentResolver(t *testing.T) {
	s := newStage(t)
	silent := make(map[netip.Addr]string)
	for n := range byte(50) {
		silent[source(n+1)] = "silent"
	}
	s.resolver(silent)
	s.conf(map[string]string{"RESOLVE_HOST": "1", "BLOCK_TCP": "2", "KILL_RUN_CMD": "echo $TARGET$ >>" + ran})
	s.detach(lab.Binary(t), "-stcp")
	for n := range byte(50) {
		s.probe("tcp", source(n+1), 11)
	}
	if got := s.waitFile(ran, 50); len(got) != 50 {
		t.Errorf("%d commands", len(got))
	}
	lab.Wait(t, patience, "a line about each", func() bool { return len(s.alerts(" to TCP port: 11")) == 50 })
}
