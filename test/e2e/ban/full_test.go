package ban_test

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// startFull runs the daemon with the full detection and no trap where scans go.
func (s *stage) startFull(more map[string]string) *daemon {
	s.t.Helper()
	c := map[string]string{"SCAN_DETECT": "full", "TCP_PORTS": "1", "UDP_PORTS": "1"}
	maps.Copy(c, more)
	return s.start(c)
}

// All ports within three seconds, and no trap among them: the scanner is cut off
// before he has got to his 700th. Clients of services go on.
func TestFastScanWithoutTraps(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.startFull(nil)
	client, src := nth(clients, 50), nth(clients, 1)
	conn := s.open(client, 443)
	sn := s.sniff()
	ports := make([]uint16, 0, 65534)
	for p := 2; p <= 65535; p++ {
		ports = append(ports, uint16(p))
	}
	probe := s.tcp(src, 40000, 2, pktgen.SYN)
	_, err := s.send.Flood(t.Context(), probe, pktgen.FloodOpts{Count: len(ports), Rate: float64(len(ports)) / 3, DstPorts: ports})
	check(t, err)
	last := uint16(0)
	for _, a := range answersTo(sn.stop(), src) {
		last = max(last, a.SrcPort)
	}
	if last < 2 || last >= 700 {
		t.Errorf("the last answer came from port %d", last)
	}
	b := d.waitBan(src)
	if b.Evidence != "E1" || b.Strength != "soft" || !strings.Contains(b.Reason, "vertical syn scan of") {
		t.Errorf("%+v", b)
	}
	check(t, echo(conn, 100))
	if c, _, err := s.dial(client, 443, soon); err != nil {
		t.Errorf("a client: %v", err)
	} else {
		c.Close()
	}
	if len(d.bans()) != 1 {
		t.Errorf("bans %+v", d.bans())
	}
}

// Who tries four ports and then finds what he looks for is let be, and so is who asks
// one dead port again and again.
func TestClientsWithoutTraps(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.startFull(nil)
	curious, stubborn := nth(clients, 1), nth(clients, 2)
	for port := uint16(4000); port < 4004; port++ {
		s.forge(s.tcp(curious, 40000+port, port, pktgen.SYN))
	}
	for sport := range uint16(200) {
		s.forge(s.tcp(stubborn, 40000+sport, 5000, pktgen.SYN))
	}
	for range 20 {
		s.open(nth(clients, 3), 443).Close()
	}
	s.seen(d)
	if bans := d.bans(); len(bans) > 0 {
		t.Errorf("bans %+v", bans)
	}
	if lines := d.scans(); len(lines) > 0 {
		t.Errorf("lines %q", lines)
	}
	s.forge(s.tcp(curious, 40000, 4004, pktgen.SYN)) // the fifth
	d.waitBan(curious)
}

// One port in each run of the daemon: what is known of a source outlives it.
func TestSlowScanAcrossRestarts(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	dir := t.TempDir()
	config := s.banning(map[string]string{
		"SCAN_DETECT": "full", "TCP_PORTS": "1", "UDP_PORTS": "1", "SOURCES_FILE": filepath.Join(dir, "sources"),
	})
	src := nth(clients, 1)
	for run := range uint16(5) {
		d := &daemon{harness.MustStart(t, harness.Options{Binary: lab.Binary(t), NS: s.Host.NS, Config: config}), t}
		s.forge(s.tcp(src, 40000, 4000+run, pktgen.SYN))
		s.seen(d)
		if run < 4 {
			if bans := d.bans(); len(bans) > 0 {
				t.Fatalf("run %d: bans %+v", run+1, bans)
			}
			check(t, d.Stop())
			continue
		}
		if b := d.waitBan(src); !strings.Contains(b.Reason, "scan") {
			t.Errorf("%+v", b)
		}
		st, err := d.Status(t.Context())
		check(t, err)
		if days := st.Horizon / 86400; days < 7 || days > 8 {
			t.Errorf("the horizon is %v days", days)
		}
	}
}
