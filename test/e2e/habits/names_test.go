package habits_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"portsentry/test/lab"
)

// nameServer answers questions for the names of addresses, on the other end of
// the wire.
type nameServer struct {
	mu    sync.Mutex
	names map[netip.Addr][]string // labels; an address that is not here gets no answer at all
	asked map[netip.Addr]int
}

// serveNames starts a nameServer, and makes it the resolver of the machine.
func serveNames(h *host, names map[netip.Addr][]string) *nameServer {
	h.t.Helper()
	s := &nameServer{names: names, asked: make(map[netip.Addr]int)}
	var conn net.PacketConn
	check(h.t, h.lab.Scanner.NS.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", netip.AddrPortFrom(h.lab.Scanner.Addr4(), 53).String())
		return err
	}))
	h.t.Cleanup(func() { conn.Close() })
	h.Write("/etc/resolv.conf", "nameserver "+h.lab.Scanner.Addr4().String()+"\noptions timeout:5 attempts:1\n")
	h.Write("/etc/nsswitch.conf", "hosts: files dns\n")
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if answer := s.answer(b[:n]); answer != nil {
				conn.WriteTo(answer, from)
			}
		}
	}()
	return s
}

// answer is what a question gets, nil for silence.
func (s *nameServer) answer(question []byte) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(question)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil || q.Type != dnsmessage.TypePTR {
		return nil
	}
	var a [4]byte
	if _, err := fmt.Sscanf(q.Name.String(), "%d.%d.%d.%d.in-addr.arpa.", &a[3], &a[2], &a[1], &a[0]); err != nil {
		return nil
	}
	addr := netip.AddrFrom4(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[addr]++
	labels, known := s.names[addr]
	if !known {
		return nil
	}
	// Not dnsmessage.PTRResource: it makes no name that is as bad as these.
	var name []byte
	for _, l := range labels {
		name = append(append(name, byte(len(l))), l...)
	}
	header.Response, header.RecursionAvailable = true, true
	b := dnsmessage.NewBuilder(nil, header)
	b.EnableCompression()
	b.StartQuestions()
	b.Question(q)
	b.StartAnswers()
	b.UnknownResource(dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60},
		dnsmessage.UnknownResource{Type: dnsmessage.TypePTR, Data: append(name, 0)})
	answer, err := b.Finish()
	if err != nil {
		return nil
	}
	return answer
}

func (s *nameServer) questions(a netip.Addr) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[a]
}

const history = "/var/lib/portsentry/portsentry.history"

// TestNames1x: with RESOLVE_HOST the names stand where 1.x had them, in the log
// and in both files.
func TestNames1x(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `RESOLVE_HOST="1"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="nftables"`,
		`BLOCKED_FILE="`+blocked+`"`, `HISTORY_FILE="`+history+`"`)
	serveNames(h, map[netip.Addr][]string{source(1): {"scanner", "example", "net"}})
	pid := h.detach("-stcp")
	h.probe(source(1), 11)
	const host = "scanner.example.net/"
	h.log.Wait(patience, "attackalert: TCP SYN/Normal scan from host: "+host+source(1).String()+" to TCP port: 11")
	h.contains(history, " Host: "+host+source(1).String()+" Port: 11 TCP Blocked")
	h.contains(blocked+".stcp", "/"+source(1).String()+" Port: 11 TCP Blocked")
	h.stop(pid)
}

// TestNames2x: in the lines of 2.x the name stands before the address, and none
// that could pass for something else stands anywhere.
func TestNames2x(t *testing.T) {
	label := strings.Repeat("x", 60)
	bad := [][]string{
		{"two\nlines", "evil"},
		{"10", "0", "0", "1", "evil"},
		{"10", "0", "0", "1"},
		{label, label, label, label, label, "evil"},
		{"a] (10", "b", "evil"},
		{"\x1b[2J", "evil"},
		{"<b>", "evil"},
		{""},
	}
	h := newHost(t, `TCP_PORTS="11"`, `RESOLVE_HOST="1"`, `HISTORY_FILE="`+history+`"`)
	names := map[netip.Addr][]string{source(0): {"scanner", "example", "net"}}
	for i, labels := range bad {
		names[source(1+i)] = labels
	}
	server := serveNames(h, names)
	p := h.foreground()
	for i := range len(names) {
		h.probe(source(i), 11)
	}
	lab.Wait(t, patience, "a line for everybody", func() bool { return len(scans(h, p.Out)) == len(names) })
	got := scans(h, p.Out)
	slices.Sort(got)
	for i := range len(names) {
		name := source(i).String()
		if i == 0 {
			name = "scanner.example.net"
		}
		if want := fmt.Sprintf("Scan from: [%s] (%s) protocol: [TCP] port: [11] ", source(i), name); !strings.HasPrefix(got[i], want) {
			t.Errorf("%q, want %q", got[i], want)
		}
		if server.questions(source(i)) == 0 {
			t.Errorf("nobody asked for the name of %s", source(i))
		}
	}
	h.contains(history, fmt.Sprintf("Scan from: [%s] (scanner.example.net)", source(0)))
	if text := h.Read(history); strings.Count(text, "\n") != len(names) || strings.Contains(text, "evil") {
		t.Errorf("the history is\n%s", text)
	}
}

func scans(h *host, out interface{ Lines() ([]string, error) }) []string {
	h.t.Helper()
	all, err := out.Lines()
	check(h.t, err)
	return about(all, "Scan from: ")
}

// TestSilentNameServer: one that does not answer holds up the lines about those
// whose names it does not say, for a moment; it costs none, and no packet.
func TestSilentNameServer(t *testing.T) {
	h := newHost(t, `TCP_PORTS="1-400"`, `RESOLVE_HOST="1"`)
	server := serveNames(h, map[netip.Addr][]string{source(1): {"quick", "example", "net"}})
	p := h.foreground()
	const each = 100
	silent := source(0)
	begin := time.Now()
	for port := range each {
		h.probe(silent, uint16(1+port))
	}
	h.probe(source(1), 400)
	lab.Wait(t, patience, "packets are counted", func() bool { return h.counter("sightings_total") == each+1 })
	counted := time.Since(begin)
	h.says(p.Out, "(quick.example.net)", "port: [400]")
	quick, waiting := time.Since(begin), len(scans(h, p.Out))
	lab.Wait(t, patience, "no line is lost", func() bool { return len(scans(h, p.Out)) == each+1 })
	t.Logf("counted after %v, the quick one's line after %v with %d lines, all after %v", counted, quick, waiting, time.Since(begin))
	if quick < time.Second && waiting != 1 {
		t.Errorf("%d lines before the name server's time was over", waiting)
	}
	var ports []string
	for _, l := range scans(h, p.Out) {
		if strings.HasPrefix(l, fmt.Sprintf("Scan from: [%s] (%[1]s) ", silent)) {
			ports = append(ports, strings.Fields(l)[7])
		}
	}
	for i, port := range ports {
		if port != fmt.Sprintf("[%d]", 1+i) {
			t.Fatalf("the lines of one host are in another order: %v", ports)
		}
	}
	if n := server.questions(silent); n != 1 {
		t.Errorf("%d questions for one name", n)
	}

	// Nor does the end wait for a name.
	h.probe(source(2), 399)
	lab.Wait(t, patience, "the packet is counted", func() bool { return h.counter("sightings_total") == each+2 })
	if code := p.Stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if n := len(with(scans(h, p.Out), "["+source(2).String()+"]")); n != 1 {
		t.Errorf("%d lines about a host whose name was being asked for at the end", n)
	}
}
