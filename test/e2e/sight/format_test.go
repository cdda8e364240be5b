package sight_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// TestFormats shows the same probes to three daemons that write differently.
func TestFormats(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	by := make(map[string]*run)
	for _, format := range []string{"1.x", "2.x", "json"} {
		by[format] = start(t, l.Host.NS, nil,
			"--socket", filepath.Join(t.TempDir(), "control.sock"),
			"-c", configFile(t, map[string]string{"TCP_PORTS": "11", "UDP_PORTS": "7", "LOG_FORMAT": format}))
		says(t, by[format].out, "entry is now active and listening.") // 1.x wrote PortSentry
	}
	w := watch(t, l, by["2.x"].out)
	ready := []string{version(t), harness.ReadyLine}
	want2 := ready
	want1 := []string{
		"adminalert: PortSentry " + strings.Fields(version(t))[1] + " is starting.",
		"adminalert: Going into stealth listen mode on TCP port: 11",
		"adminalert: Going into stealth listen mode on UDP port: 7",
		"adminalert: PortSentry is now active and listening.",
	}
	var wantJSON []map[string]any
	for _, c := range []struct {
		v6    bool
		edit  func(*pktgen.Packet)
		in1x  string
		kind  string
		in2x  string
		flags string
	}{
		{false, nil, "TCP SYN/Normal scan", "syn", synScan, "SYN"},
		{false, flags(pktgen.FIN), "TCP FIN scan", "fin", "TCP FIN scan", "FIN"},
		{false, flags(0), " TCP NULL scan", "null", "TCP NULL scan", ""}, // two blanks in all
		{false, flags(pktgen.FIN | pktgen.PSH | pktgen.URG), "TCP XMAS scan", "xmas", "TCP XMAS scan", "FIN,PSH,URG"},
		{true, flags(pktgen.FIN | pktgen.ACK), "TCP Maimon scan", "maimon", "TCP Maimon scan", "FIN,ACK"},
		{true, flags(pktgen.ACK), "TCP ACK/Window scan", "ack", "TCP ACK/Window scan", "ACK"},
		{false, flags(pktgen.SYN | pktgen.FIN), odd(1, 1, 0, 0), "odd", odd(1, 1, 0, 0), "FIN,SYN"},
		{false, func(p *pktgen.Packet) { p.Proto, p.DstPort, p.Flags = pktgen.ProtoUDP, 7, 0 }, "UDP scan", "udp", udpScan, ""},
		{false, func(p *pktgen.Packet) { p.IPOptions = []byte{1, 1, 1, 1} }, "TCP SYN/Normal scan", "syn", synScan, "SYN"},
	} {
		p := w.packet(11, c.v6, c.edit)
		proto, opts := "TCP", "not set"
		object := map[string]any{
			"event": "sighting", "source": p.Src.String(), "source_port": 40000., "destination": p.Dst.String(), "interface": "eth0",
			"protocol": "tcp", "destination_port": 11., "kind": c.kind, "type": c.in2x, "flags": c.flags, "ttl": 64.,
			"ip_options": p.IPOptions != nil, "fragmented": false, "count": 1.,
			"ignored": false, "triggered": true, "noblock": true, "blocked": false, "already_blocked": false,
			"evidence": "E1", "strength": "none", "peer": false, "reason": "log only",
		}
		for _, earlier := range wantJSON {
			if earlier["source"] == object["source"] {
				object["count"] = earlier["count"].(float64) + 1
			}
		}
		if p.Proto == pktgen.ProtoUDP {
			proto = "UDP"
			object["protocol"], object["destination_port"] = "udp", 7.
			delete(object, "flags")
		}
		host := p.Src.String() + "/" + p.Src.String() + " to " + proto + " port: " + map[string]string{"TCP": "11", "UDP": "7"}[proto]
		want1 = append(want1, "attackalert: "+c.in1x+" from host: "+host)
		switch {
		case c.v6:
			opts = "unknown"
			delete(object, "ip_options")
		case p.IPOptions != nil:
			opts = "set"
			want1 = append(want1, "attackalert: Packet from host: "+host+" has IP options set (detection avoidance technique).")
		}
		want1 = append(want1, "attackalert: Ignoring "+proto+" response per configuration file setting.")
		want2 = append(want2, scanLine(p.Src, proto, int(p.DstPort), c.in2x, opts))
		wantJSON = append(wantJSON, object)

		w.sendPacket(t, p)
		for format, n := range map[string]int{"1.x": len(want1), "2.x": len(want2), "json": len(ready) + len(wantJSON)} {
			lab.Wait(t, patience, c.in2x+" in "+format, func() bool { return len(lines(t, by[format].out)) >= n })
		}
	}
	for format, r := range by {
		r.signal(t, syscall.SIGTERM)
		if got := r.code(t); got != 0 {
			t.Errorf("%s: exit code %d", format, got)
		}
	}

	const bye = "Portsentry is shutting down"
	if d := cmp.Diff(append(want2, bye), lines(t, by["2.x"].out)); d != "" {
		t.Errorf("2.x (-want +got):\n%s", d)
	}
	want1 = append(want1, "securityalert: PortSentry is shutting down", "adminalert: PortSentry is shutting down")
	if d := cmp.Diff(want1, lines(t, by["1.x"].out)); d != "" {
		t.Errorf("1.x (-want +got):\n%s", d)
	}
	var got []map[string]any
	var notices []string
	for _, line := range lines(t, by["json"].out) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		when, _ := o["time"].(string)
		if at, err := time.Parse(time.RFC3339Nano, when); err != nil || time.Since(at).Abs() > time.Minute {
			t.Errorf("time of %q: %v", line, err)
		}
		delete(o, "time")
		switch o["event"] {
		case "notice":
			notices = append(notices, o["text"].(string))
		case "problem": // the others of this test may have the XDP program
		default:
			got = append(got, o)
		}
	}
	if d := cmp.Diff(wantJSON, got); d != "" {
		t.Errorf("JSON (-want +got):\n%s", d)
	}
	if d := cmp.Diff(append(ready, bye), notices); d != "" {
		t.Errorf("notices of JSON (-want +got):\n%s", d)
	}
}

// version is what the program under test says first.
func version(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(lab.Binary(t), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func flags(f uint16) func(*pktgen.Packet) { return func(p *pktgen.Packet) { p.Flags = f } }
