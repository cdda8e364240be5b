package log

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

var source = netip.MustParseAddr("203.0.113.9")

// record is a sighting of one packet to port 1 under BLOCK_TCP=0, BLOCK_UDP=0.
func record(k detect.Kind) *store.Record {
	r := &store.Record{Verdict: judge.Verdict{
		Sighting: detect.Sighting{
			Time: time.Date(2026, 11, 21, 9, 14, 2, 113_000_000, time.UTC).UnixNano(), IfIndex: 2,
			Src: source, Dst: netip.MustParseAddr("10.0.0.5"), SrcPort: 40000, DstPort: 1,
			Proto: decode.ProtoTCP, Kind: k, TTL: 52, IPOptions: decode.No, Count: 1, Triggered: true,
		},
		Evidence: judge.E1, Reason: "log only",
	}}
	switch s := &r.Verdict.Sighting; k {
	case detect.KindSYN:
		s.Flags = decode.SYN
	case detect.KindOdd:
		s.Flags = decode.SYN | decode.FIN
	case detect.KindUDP:
		s.Proto = decode.ProtoUDP
	}
	return r
}

// banning is the same under BLOCK_TCP=1 with what came of it.
func banning(o respond.Outcome) *store.Record {
	r := record(detect.KindSYN)
	r.Verdict.Block = config.BlockBan
	r.Verdict.Strength = judge.Soft
	r.Verdict.Prefix = netip.PrefixFrom(source, 32)
	r.Verdict.Length = 10 * time.Minute
	r.Verdict.Reason = "syn to trap port 1, unverified"
	r.Outcome = o
	return r
}

func blockedBy(actions ...respond.Action) *store.Record {
	return banning(respond.Outcome{Blocked: true, Actions: actions})
}

var (
	errExit = errors.New("exit status 127 (not found)")

	native  = respond.Action{Step: respond.StepNative, Text: "nftables for 10m0s (new connections; unverified)"}
	route   = respond.Action{Step: respond.StepRoute, Text: "/sbin/ip route add blackhole 203.0.113.9", Took: 2500 * time.Microsecond}
	denied  = respond.Action{Step: respond.StepHostsDeny, Text: "ALL: 203.0.113.9"}
	already = respond.Action{Step: respond.StepHostsDeny, Text: "ALL: 203.0.113.9", Skipped: true}
	command = respond.Action{Step: respond.StepCommand, Text: "/bin/mail 203.0.113.9"}
	missing = respond.Action{Step: respond.StepRoute, Text: "/nonexistent 203.0.113.9", Err: errExit}
	noRoute = respond.Action{Step: respond.StepRoute, Skipped: true}
)

// scanLine is the end of most expectations.
func scanLine(states string) string {
	f := strings.Fields(states)
	return "Scan from: [203.0.113.9] (203.0.113.9) protocol: [TCP] port: [1] type: [TCP SYN/Normal scan] IP opts: [not set] " +
		"ignored: [" + f[0] + "] triggered: [" + f[1] + "] noblock: [" + f[2] + "] blocked: [" + f[3] + "]\n"
}

func TestScan2x(t *testing.T) {
	tests := []struct {
		name     string
		r        *store.Record
		out, err string
	}{
		{"log only", record(detect.KindSYN), scanLine("false true true false"), ""},
		{"native", blockedBy(native),
			"attackalert: Host 203.0.113.9 has been blocked via nftables for 10m0s (new connections; unverified)\n" +
				scanLine("false true false true"), ""},
		{"classic steps", blockedBy(denied, route, command),
			"attackalert: Host 203.0.113.9 has been blocked via wrappers with string: \"ALL: 203.0.113.9\"\n" +
				"attackalert: Host 203.0.113.9 has been blocked via dropped route using command: \"/sbin/ip route add blackhole 203.0.113.9\"\n" +
				"attackalert: External command run for host: 203.0.113.9 using command: \"/bin/mail 203.0.113.9\"\n" +
				scanLine("false true false true"), ""},
		{"line was there", blockedBy(already),
			"Host 203.0.113.9 already in hosts.deny file, skipping.\n" + scanLine("false true false true"), ""},
		{"already blocked", banning(respond.Outcome{Blocked: true, Already: true}),
			"attackalert: Host: 203.0.113.9/203.0.113.9 is already blocked Ignoring\n" + scanLine("false true false true"), ""},
		{"all failed", banning(respond.Outcome{Actions: []respond.Action{missing}}),
			scanLine("false true false false"),
			"adminalert: KILL_ROUTE failed for 203.0.113.9: exit status 127 (not found): \"/nonexistent 203.0.113.9\"\n" +
				"attackalert: Error during target dispose 203.0.113.9/203.0.113.9!\n"},
		{"one of two failed", blockedBy(denied, missing),
			"attackalert: Host 203.0.113.9 has been blocked via wrappers with string: \"ALL: 203.0.113.9\"\n" +
				scanLine("false true false true"),
			"adminalert: KILL_ROUTE failed for 203.0.113.9: exit status 127 (not found): \"/nonexistent 203.0.113.9\"\n"},
		{"no command for the family", banning(respond.Outcome{Actions: []respond.Action{noRoute}}),
			"adminalert: KILL_ROUTE not run for 203.0.113.9: no command is set for an IPv4 source\n" +
				scanLine("false true false false"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			w := New(Options{Format: config.Log2x, Stdout: &out, Stderr: &errOut})
			w.Scan(tt.r)
			closed(t, w)
			if d := cmp.Diff(tt.out, out.String()); d != "" {
				t.Errorf("stdout (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.err, errOut.String()); d != "" {
				t.Errorf("stderr (-want +got):\n%s", d)
			}
		})
	}
}

func TestScan1x(t *testing.T) {
	withOptions := record(detect.KindSYN)
	withOptions.Verdict.Sighting.IPOptions = decode.Yes
	ignored := record(detect.KindSYN)
	ignored.Verdict.Spared = judge.Ignored
	gateway := record(detect.KindSYN)
	gateway.Verdict.Spared = judge.Gateway
	below := record(detect.KindSYN)
	below.Verdict.Sighting.Triggered = false
	named := record(detect.KindSYN)
	named.Name = "scanner.example.net"

	const (
		syn     = "attackalert: TCP SYN/Normal scan from host: 203.0.113.9/203.0.113.9 to TCP port: 1\n"
		logOnly = "attackalert: Ignoring TCP response per configuration file setting.\n"
	)
	tests := []struct {
		name string
		r    *store.Record
		want string
	}{
		{"SYN", record(detect.KindSYN), syn + logOnly},
		{"NULL has two spaces", record(detect.KindNULL),
			"attackalert:  TCP NULL scan from host: 203.0.113.9/203.0.113.9 to TCP port: 1\n" + logOnly},
		{"odd flags", record(detect.KindOdd), "attackalert: Unknown Type: TCP Packet Flags: SYN: 1 FIN: 1 ACK: 0 PSH: 0 URG: 0 RST: 0" +
			" from host: 203.0.113.9/203.0.113.9 to TCP port: 1\n" + logOnly},
		{"UDP", record(detect.KindUDP), "attackalert: UDP scan from host: 203.0.113.9/203.0.113.9 to UDP port: 1\n" +
			"attackalert: Ignoring UDP response per configuration file setting.\n"},
		{"IP options", withOptions, syn +
			"attackalert: Packet from host: 203.0.113.9/203.0.113.9 to TCP port: 1 has IP options set (detection avoidance technique).\n" + logOnly},
		{"name", named, "attackalert: TCP SYN/Normal scan from host: scanner.example.net/203.0.113.9 to TCP port: 1\n" + logOnly},
		{"ignored", ignored, ""},
		{"spared", gateway, ""},
		{"below SCAN_TRIGGER", below, ""},
		{"blocked", blockedBy(route), syn +
			"attackalert: Host 203.0.113.9 has been blocked via dropped route using command: \"/sbin/ip route add blackhole 203.0.113.9\"\n"},
		{"already blocked", banning(respond.Outcome{Blocked: true, Already: true}), syn +
			"attackalert: Host: 203.0.113.9/203.0.113.9 is already blocked Ignoring\n"},
		{"failed", banning(respond.Outcome{Actions: []respond.Action{missing}}), syn +
			"adminalert: ERROR: There was an error trying to block host (exec fail) 203.0.113.9\n" +
			"adminalert: KILL_ROUTE failed for 203.0.113.9: exit status 127 (not found): \"/nonexistent 203.0.113.9\"\n" +
			"attackalert: ERROR: Could not block host 203.0.113.9/203.0.113.9 !!\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			w := New(Options{Format: config.Log1x, Stdout: &out, Stderr: &errOut})
			w.Scan(tt.r)
			closed(t, w)
			if d := cmp.Diff(tt.want, out.String()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if errOut.Len() > 0 {
				t.Errorf("1.x has one stream, but stderr got %q", errOut.String())
			}
		})
	}
}

func TestActionsLater(t *testing.T) {
	host6 := netip.MustParseAddr("2001:db8::9")
	undo := func(s respond.Step, text string) respond.Action { return respond.Action{Step: s, Text: text} }
	tests := []struct {
		host netip.Addr
		a    respond.Action
		want string
	}{
		{source, command, "attackalert: External command run for host: 203.0.113.9 using command: \"/bin/mail 203.0.113.9\"\n"},
		{host6, noRoute, "adminalert: KILL_ROUTE not run for 2001:db8::9: no command is set for an IPv6 source\n"},
		{source, undo(respond.StepNativeUndo, "nftables"), "adminalert: Host 203.0.113.9 is no longer blocked via nftables\n"},
		{source, undo(respond.StepRouteUndo, "ip route del 203.0.113.9"),
			"adminalert: Host 203.0.113.9 is no longer blocked via dropped route, using command: \"ip route del 203.0.113.9\"\n"},
		{source, undo(respond.StepHostsDenyUndo, "ALL: 203.0.113.9"),
			"adminalert: Host 203.0.113.9 is no longer blocked via wrappers with string: \"ALL: 203.0.113.9\"\n"},
		{source, undo(respond.StepCommandUndo, "/bin/true"),
			"adminalert: External undo command run for host: 203.0.113.9 using command: \"/bin/true\"\n"},
		{source, respond.Action{Step: respond.StepHostsDenyUndo, Skipped: true}, ""},
		{source, respond.Action{Step: respond.StepNative, Skipped: true, Text: "dryrun for 10m0s (new connections; unverified)"},
			"adminalert: Host 203.0.113.9 would be blocked via dryrun for 10m0s (new connections; unverified)\n"},
		{source, respond.Action{Step: respond.StepNative, Err: respond.ErrRate},
			"adminalert: native ban failed for 203.0.113.9: too many new bans a second on unverified evidence\n"},
		{source, respond.Action{Step: respond.StepRouteUndo, Text: "ip route del 203.0.113.9", Err: errExit},
			"adminalert: KILL_ROUTE_UNDO failed for 203.0.113.9: exit status 127 (not found): \"ip route del 203.0.113.9\"\n"},
		{source, undo(respond.StepCommand, "a\nScan from: [192.0.2.1]"),
			"attackalert: External command run for host: 203.0.113.9 using command: \"a?Scan from: [192.0.2.1]\"\n"},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		w := New(Options{Format: config.Log2x, Stdout: &out, Stderr: &out})
		w.Actions(tt.host, []respond.Action{tt.a}) // without a Flush
		idle(w.console)
		if d := cmp.Diff(tt.want, out.String()); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

// Only what may be a host name is shown as one: the zone may be the scanner's.
func TestHostileNames(t *testing.T) {
	r := record(detect.KindSYN)
	r.Name = "x\nattackalert: Host 10.0.0.1"
	for _, format := range []config.LogFormat{config.Log1x, config.Log2x, config.LogJSON} {
		var out bytes.Buffer
		w := New(Options{Format: format, Stdout: &out})
		w.Scan(r)
		closed(t, w)
		if strings.Contains(out.String(), "10.0.0.1") || strings.Contains(out.String(), `"name"`) {
			t.Errorf("%s: %q", format, out.String())
		}
	}
}

func TestLongLinesEndInDots(t *testing.T) {
	var out bytes.Buffer
	w := New(Options{Format: config.Log2x, Stdout: &out})
	w.Notice(strings.Repeat("a", maxLine))
	w.Notice(strings.Repeat("b", maxLine+1))
	closed(t, w)
	want := strings.Repeat("a", maxLine) + "\n" + strings.Repeat("b", maxLine-3) + "...\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// fullDisk takes room bytes and then none.
type fullDisk struct {
	bytes.Buffer
	room int
}

var errFull = errors.New("no space left on device")

func (d *fullDisk) Write(p []byte) (int, error) {
	if len(p) <= d.room {
		d.room -= len(p)
		return d.Buffer.Write(p)
	}
	n, _ := d.Buffer.Write(p[:d.room])
	d.room = 0
	return n, errFull
}

func TestLossIsCounted(t *testing.T) {
	disk := &fullDisk{room: 10}
	w := New(Options{Format: config.Log2x, Stdout: disk})
	for _, line := range []string{"first", "the torn", "the third"} { // 6 bytes, 4 of 9, none
		w.Notice(line)
		idle(w.console)
	}
	disk.room = 100
	w.Notice("fourth")
	closed(t, w)
	if got, want := disk.String(), "first\nthe \nfourth\n"; got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
	s := w.Stats()
	if s.Lines != 4 || s.Lost != 2 || !errors.Is(s.Err, errFull) {
		t.Errorf("Stats() = %+v, want 4 lines, 2 lost", s)
	}
}

// closed closes w.
func closed(t testing.TB, w *Writer) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// idle waits until q has nothing to write.
func idle(q *queue) { q.wait(context.Background()) }

// No more than the buffer is held, and no line is broken, whoever writes.
func TestConcurrentWriters(t *testing.T) {
	for _, format := range []config.LogFormat{config.Log1x, config.Log2x, config.LogJSON} {
		var out, errOut bytes.Buffer
		w := New(Options{Format: format, Stdout: &out, Stderr: &errOut})
		r := record(detect.KindSYN)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 500 {
					w.Scan(r)
				}
				w.Actions(source, []respond.Action{command, missing})
			})
		}
		wg.Wait()
		closed(t, w)
		if got := uint64(bytes.Count(out.Bytes(), []byte("\n")) + bytes.Count(errOut.Bytes(), []byte("\n"))); got != w.Stats().Lines || w.Stats().Lost != 0 {
			t.Errorf("%s: %d lines written, Stats says %+v", format, got, w.Stats())
		}
	}
}

// Every control character at every place of a line is seen, and nothing else.
func TestClean(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for c := range 256 {
				line := bytes.Repeat([]byte{0xc3, ' ', '~', 0x80}, 5)[:length]
				line[at] = byte(c)
				want := bytes.Clone(line)
				if c < ' ' || c == 0x7f {
					want[at] = '?'
				}
				if got := clean(line); !bytes.Equal(got, want) {
					t.Fatalf("byte %#x at %d of %d: %q", c, at, length, got)
				}
			}
		}
	}
}
