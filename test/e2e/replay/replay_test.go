package replay_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"portsentry/internal/app"
	"portsentry/internal/pktgen"
)

// asProgram: this process is to be the program itself, for what takes a standard
// input.
const asProgram = "PORTSENTRY_REPLAY_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(app.Main(context.Background(), app.Build{}, os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// said is what a run of the command came to.
type said struct {
	code     int
	out, err string
}

// run runs portsentry replay with args.
func run(t testing.TB, args ...string) said {
	t.Helper()
	var out, errs bytes.Buffer
	code := app.Main(t.Context(), app.Build{}, append([]string{"replay"}, args...), &out, &errs)
	return said{code, out.String(), errs.String()}
}

// found is what lines of JSON tell: "SOURCE KIND".
func (s said) found(t testing.TB) []string {
	t.Helper()
	out := []string{}
	for line := range strings.Lines(s.out) {
		var e struct{ Event, Source, Kind string }
		must(t, json.Unmarshal([]byte(line), &e))
		if e.Event != "scan" {
			t.Errorf("%s", line)
		}
		out = append(out, e.Source+" "+e.Kind)
	}
	slices.Sort(out)
	return out
}

func (s said) is(t testing.TB, code int, found ...string) {
	t.Helper()
	if got := s.found(t); s.code != code || !slices.Equal(got, append([]string{}, found...)) {
		t.Errorf("exit code %d, found %q; want %d, %q\n%s", s.code, got, code, found, s.err)
	}
}

const scannerSYN = "203.0.113.9 syn"

// day is ordinary traffic with a scan in it.
func day(t testing.TB) *tape {
	d := newTape(t)
	for range 20 {
		d.visit(client, server, 443)
		d.question(client, server, 53)
	}
	d.scan(scanner, server, 1000, 60)
	d.visit(client, server, 80)
	return d
}

// Every format tells the same.
func TestFormats(t *testing.T) {
	d := day(t)
	little, big := binary.LittleEndian, binary.BigEndian
	want := run(t, "--json", d.save("day.pcap"))
	want.is(t, 0, scannerSYN)
	for name, b := range map[string][]byte{
		"nanoseconds": d.pcap(little, true), "big-endian": d.pcap(big, false), "big-endian nanoseconds": d.pcap(big, true),
		"pcapng": d.pcapng(little), "big-endian pcapng": d.pcapng(big),
		"gzip": zipped(t, d.pcap(little, false)), "pcapng gzip": zipped(t, d.pcapng(big)),
	} {
		if got := run(t, "--json", file(t, name, b)); unscored(got.out) != unscored(want.out) || got.code != 0 {
			t.Errorf("%s: exit code %d\n%swant\n%s%s", name, got.code, got.out, want.out, got.err)
		}
	}
}

// unscored is lines without their scores, which depend on what is kept by chance.
func unscored(lines string) string {
	return regexp.MustCompile(`"score":[0-9.]+`).ReplaceAllString(lines, "")
}

func TestJSON(t *testing.T) {
	s := run(t, "--json", day(t).save("day.pcap"))
	var line map[string]any
	must(t, json.Unmarshal([]byte(s.out), &line))
	for field, want := range map[string]any{
		"event": "scan", "source": "203.0.113.9", "kind": "syn", "direction": "vertical", "proto": "tcp", "evidence": "E1",
		"ports": 60.0, "targets": 1.0, "probes": 60.0, "failed": 60.0,
	} {
		if line[field] != want {
			t.Errorf("%s: %v, want %v", field, line[field], want)
		}
	}
	first, last := began.Add(20*12*few+time.Millisecond), began.Add(20*12*few+60*time.Millisecond+59*few)
	for field, want := range map[string]time.Time{"first": first, "last": last} {
		if got, err := time.Parse(time.RFC3339Nano, line[field].(string)); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, want %v (%v)", field, line[field], want, err)
		}
	}
	fields := slices.Sorted(maps.Keys(line))
	for _, field := range []string{"time", "score", "reason"} {
		if !slices.Contains(fields, field) {
			t.Errorf("no %s in %q", field, fields)
		}
	}
}

func TestText(t *testing.T) {
	t.Setenv("COLUMNS", "")
	s := run(t, "--local", "198.51.100.0/24", day(t).save("day.pcap"))
	lines := strings.Split(strings.TrimSpace(s.out), "\n")
	if s.code != 0 || lines[0] != "203.0.113.9 vertical SYN scan of 60 TCP ports of one address in 70 ms" ||
		!strings.HasPrefix(lines[1], "    from 2026-03-04 05:06:07.049 UTC, from outside, 60 probes, unverified") ||
		!strings.HasPrefix(lines[len(lines)-1], "1 scanner in 370 packets over ") {
		t.Errorf("exit code %d\n%s", s.code, s.out)
	}
	for _, line := range lines {
		if utf8.RuneCountInString(line) > 100 {
			t.Errorf("more than 100 columns: %s", line)
		}
	}
	for _, want := range []string{"local networks: 198.51.100.0/24\n", "370 packets in ", " packets/s\n"} {
		if !strings.Contains(s.err, want) {
			t.Errorf("no %q in %q", want, s.err)
		}
	}
}

func TestQuiet(t *testing.T) {
	d := newTape(t)
	for range 50 {
		d.visit(client, server, 443)
		d.question(client, server, 53)
	}
	path := d.save("quiet.pcap")
	if s := run(t, path); s.code != 0 || s.out != "no scan found in 600 packets over 119 ms\n" {
		t.Errorf("%+v", s)
	}
	run(t, "--json", path).is(t, 0)
	empty := newTape(t).save("empty.pcap")
	if s := run(t, empty); s.code != 0 || s.out != "no scan found, and no packet to find one in\n" {
		t.Errorf("%+v", s)
	}
}

// A last packet that was cut off is a notice, whatever the format.
func TestCut(t *testing.T) {
	d := day(t)
	for name, b := range map[string][]byte{"pcap": d.pcap(binary.LittleEndian, false), "pcapng": d.pcapng(binary.BigEndian)} {
		s := run(t, "--json", file(t, name, b[:len(b)-7]))
		s.is(t, 0, scannerSYN)
		if !strings.Contains(s.err, name+" ends in the middle of a packet; the 369 packets before it were judged\n") {
			t.Errorf("%s: %s", name, s.err)
		}
	}
	b := zipped(t, d.pcap(binary.LittleEndian, false))
	if s := run(t, "--json", file(t, "gzip", b[:len(b)*9/10])); s.code != 0 || !strings.Contains(s.err, "ends in the middle of a packet") {
		t.Errorf("%+v", s)
	}
}

// Of a damaged file what could be read is judged, the rest is said, and the next
// file is read.
func TestDamaged(t *testing.T) {
	d := day(t)
	b := d.pcap(binary.LittleEndian, false)
	short := newTape(t)
	short.records = d.records[:300]
	at := len(short.pcap(binary.LittleEndian, false))
	binary.LittleEndian.PutUint32(b[at+8:], 1<<30)
	bad := file(t, "bad.pcap", b)
	s := run(t, "--json", bad)
	s.is(t, 1, scannerSYN)
	if !strings.Contains(s.err, bad+" is damaged after 300 packets (a packet of 1073741824 bytes); what comes before was judged\n") {
		t.Error(s.err)
	}
	other := newTape(t)
	other.scan(netip.MustParseAddr("203.0.113.10"), server, 2000, 40)
	run(t, "--json", bad, other.save("other.pcap")).is(t, 1, "203.0.113.10 syn", scannerSYN)
	sum := zipped(t, d.pcap(binary.LittleEndian, false))
	sum[len(sum)-6] ^= 1
	run(t, "--json", file(t, "sum.pcap.gz", sum)).is(t, 1, scannerSYN)
}

// What cannot be read is said, with what to do about it, and the others are read.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	good := day(t).save("day.pcap")
	for _, c := range []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "none.pcap"), "none.pcap: there is no such file\n"},
		{"directory", dir, dir + " is a directory; name the captures in it, for example " + dir + "/*.pcap\n"},
		{"text", file(t, "notes.txt", []byte("dear diary")), "notes.txt: neither pcap nor pcapng (it begins with 64656172); editcap "},
		{"xz", file(t, "a.pcap.xz", []byte("\xfd7zXZ\x00")), "compressed with xz, and gzip alone is read here; unpack it: xz -dc "},
		{"nothing", file(t, "zero.pcap", nil), "zero.pcap is empty\n"},
		{"header cut", file(t, "head.pcap", []byte("\xd4\xc3\xb2\xa1\x02\x00")), "head.pcap ends before its first packet\n"},
	} {
		s := run(t, "--json", c.path, good)
		s.is(t, 1, scannerSYN)
		if !strings.Contains(s.err, c.want) {
			t.Errorf("%s: %q, want %q", c.name, s.err, c.want)
		}
	}
}

func TestStandardInput(t *testing.T) {
	d := day(t)
	for _, b := range [][]byte{d.pcap(binary.BigEndian, false), zipped(t, d.pcapng(binary.LittleEndian))} {
		program, err := os.Executable()
		must(t, err)
		cmd := exec.CommandContext(t.Context(), program, "replay", "--json", "-")
		var out, errs bytes.Buffer
		cmd.Env = append(os.Environ(), asProgram+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(b), &out, &errs
		must(t, cmd.Run())
		said{0, out.String(), errs.String()}.is(t, 0, scannerSYN)
	}
}

// Several files are one capture to the engine, even where time goes back.
func TestOneEngine(t *testing.T) {
	parts := make([]string, 3)
	for i, day := range []int{0, 7, 3} {
		d := newTape(t)
		d.now = began.AddDate(0, 0, day)
		d.visit(client, server, 443)
		d.scan(scanner, server, 1000+10*i, 2)
		parts[i] = d.save("part.pcap")
	}
	for _, part := range parts {
		run(t, "--json", part).is(t, 0)
	}
	run(t, append([]string{"--json"}, parts...)...).is(t, 0, scannerSYN)
	// Each with its own times, they cover the sum.
	if s := run(t, parts[0], parts[0]); s.code != 0 || s.out != "no scan found in 28 packets over 8 ms\n" {
		t.Errorf("%+v", s)
	}
}

// A busy day of many who mostly find what they look for, played one capture after
// the other, in any order of time: nobody is a scanner.
func TestBusyDay(t *testing.T) {
	var paths []string
	for i, hour := range []int{9, 10, 11, 8, 15, 0} {
		d := newTape(t)
		d.now = began.Add(time.Duration(hour) * time.Hour)
		for n := range 150 {
			from := netip.AddrFrom4([4]byte{198, 51, byte(n % 3), byte(n)})
			d.visit(from, server, 443)
			d.question(from, server, 53)
			d.visit(from, netip.AddrFrom4([4]byte{192, 0, 2, byte(10*i + n%10)}), 80)
			switch n % 4 {
			case 0: // a service that is not up today
				d.probe(few, from, server, 8443)
				d.probe(time.Second, from, server, 8443)
			case 1: // backscatter of what somebody else sent in this name
				d.tcp(few, netip.AddrPortFrom(scanner, 80), netip.AddrPortFrom(from, uint16(1000+n)), pktgen.SYN|pktgen.ACK)
				d.tcp(few, netip.AddrPortFrom(scanner, 80), netip.AddrPortFrom(from, uint16(2000+n)), pktgen.RST|pktgen.ACK)
			case 2: // late packets of a connection that is gone
				c := d.next(from)
				d.tcp(few, c, netip.AddrPortFrom(server, 443), pktgen.FIN|pktgen.ACK)
				d.tcp(few, netip.AddrPortFrom(server, 443), c, pktgen.RST)
			}
		}
		paths = append(paths, d.save("hour.pcap"))
	}
	s := run(t, append([]string{"--json"}, paths...)...)
	s.is(t, 0)
	if !strings.Contains(s.err, "21,612 packets in ") {
		t.Error(s.err)
	}
}

// Stopped, it says what there was until then.
func TestStopped(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var out, errs bytes.Buffer
	code := app.Main(ctx, app.Build{}, []string{"replay", day(t).save("day.pcap")}, &out, &errs)
	if code != 1 || !strings.Contains(errs.String(), "stopped before the end; what had been read was judged\n") {
		t.Errorf("exit code %d, %q, %q", code, out.String(), errs.String())
	}
}

// Packets without a time, as pcapng may have them, come at that of the one before.
func TestNoTime(t *testing.T) {
	d := newTape(t)
	d.scan(scanner, server, 1000, 20)
	d.now = time.Unix(0, 0)
	d.tcp(0, d.next(client), netip.AddrPortFrom(server, 443), pktgen.SYN)
	d.now = began.Add(time.Second)
	d.scan(scanner, server, 1020, 20)
	s := run(t, d.save("day.pcap"))
	if !strings.Contains(s.out, "of 40 TCP ports ") || !strings.HasSuffix(s.out, "1 scanner in 81 packets over 1.0 s\n") {
		t.Errorf("%+v", s)
	}
}

// IPv6, and frames that are none of ours.
func TestOtherPackets(t *testing.T) {
	d := newTape(t)
	from, to := netip.MustParseAddr("2001:db8::9"), netip.MustParseAddr("2001:db8:1::1")
	d.scan(from, to, 1000, 40)
	d.records = append(d.records, record{d.now, bytes.Repeat([]byte{0xff}, 60)}, record{d.now, []byte{1}}, record{d.now, nil})
	run(t, "--json", d.save("six.pcap")).is(t, 0, "2001:db8::9 syn")
	b := d.pcap(binary.LittleEndian, false)
	b[20] = 105 // IEEE 802.11
	s := run(t, file(t, "air.pcap", b))
	if s.code != 0 || !strings.Contains(s.err, "83 packets of a link type that portsentry cannot read\n") {
		t.Errorf("%+v", s)
	}
}
