package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// mistakes gives the lines of an error of Parse or ParseIgnore.
func mistakes(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var m *Mistakes
	if !errors.As(err, &m) {
		t.Fatalf("the error is a %T, not *Mistakes: %v", err, err)
	}
	if len(*m) == 0 {
		t.Fatal("an error without a mistake")
	}
	return strings.Split(err.Error(), "\n")
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("test.conf", []byte(text))
	if err != nil {
		t.Fatalf("%s\nin\n%s", err, text)
	}
	return c
}

// same compares what two Configs say, wherever they were read.
func same(a, b *Config) bool {
	x, y := *a, *b
	x.Path, y.Path, x.lines, y.lines = "", "", nil, nil
	return reflect.DeepEqual(x, y)
}

func effective(t *testing.T, c *Config) string {
	t.Helper()
	var b strings.Builder
	if err := c.WriteEffective(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestEightMistakes(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "eight-mistakes.conf"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "eight-mistakes.txt"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("bad.conf", text)
	if c != nil {
		t.Error("a Config in spite of mistakes")
	}
	got := mistakes(t, err)
	if len(got) != 8 {
		t.Errorf("%d mistakes, want 8", len(got))
	}
	if err.Error()+"\n" != string(want) {
		t.Errorf("got\n%s\nwant\n%s", err, want)
	}
}

func TestFilesOfOld(t *testing.T) {
	common := Config{
		IgnoreFile: "/etc/portsentry/portsentry.ignore",
		Modes:      Modes{Stealth, Stealth}, BlockEvidence: EvidenceAny,
		BanTime: time.Hour, BanTimeUnverified: 10 * time.Minute,
		BanTimeFactor: 2, BanTimeMax: week, DatabaseKeep: 12 * week, DatabaseSize: 256,
		Capture: CaptureAuto, LogFormat: Log2x, ScanDetect: DetectTraps,
	}
	debian, plain, all := common, common, common
	debian.TCPPorts = PortSet{{1, 1}, {11, 11}, {15, 15}, {79, 79}, {111, 111}, {119, 119}, {143, 143}, {540, 540}, {635, 635},
		{1080, 1080}, {1524, 1524}, {2000, 2000}, {5742, 5742}, {6667, 6667}, {12345, 12346}, {20034, 20034}, {27665, 27665},
		{31337, 31337}, {32771, 32774}, {40421, 40421}, {49724, 49724}, {54320, 54320}}
	debian.UDPPorts = PortSet{{1, 1}, {7, 7}, {9, 9}, {69, 69}, {161, 162}, {513, 513}, {635, 635}, {640, 641}, {700, 700},
		{31335, 31335}, {31337, 31337}, {32770, 32774}, {34555, 34555}, {37444, 37444}, {54321, 54321}}
	debian.AdvancedPortsTCP, debian.AdvancedPortsUDP = 1024, 1024
	debian.AdvancedExcludeTCP = PortSet{{113, 113}, {139, 139}}
	debian.AdvancedExcludeUDP = PortSet{{67, 67}, {137, 138}, {520, 520}}
	debian.HistoryFile = "/var/lib/portsentry/portsentry.history"
	debian.BlockedFile = "/var/lib/portsentry/portsentry.blocked"
	debian.KillRoute = "/sbin/route add -host $TARGET$ reject"
	debian.KillHostsDeny = "ALL: $TARGET$ : DENY"

	plain.TCPPorts = PortSet{{1, 1}, {7, 7}, {9, 9}, {11, 11}, {13, 13}, {15, 15}, {17, 17}, {19, 21}, {70, 70}, {79, 79}, {111, 111},
		{113, 113}, {119, 119}, {389, 389}, {512, 515}, {540, 540}, {543, 544}, {873, 873}, {989, 990}, {992, 992}, {1080, 1080}}
	plain.UDPPorts = PortSet{{7, 7}, {9, 9}, {13, 13}, {19, 19}, {111, 111}, {389, 389}, {513, 513}, {517, 518}}
	plain.HistoryFile = "/var/run/portsentry/portsentry.history"
	plain.BlockedFile = "/var/run/portsentry/portsentry.blocked"

	all.TCPPorts = PortSet{{1, 1813}}
	all.UDPPorts = PortSet{{7, 52}, {54, 66}, {69, 136}, {139, 5061}}
	all.HistoryFile, all.BlockedFile = plain.HistoryFile, plain.BlockedFile
	all.KillRoute = "/bin/echo 'block in log on external_interface from $TARGET$/32 to any' | /sbin/pfctl -f -"
	all.KillHostsDeny = "ALL: $TARGET$ : DENY"
	all.KillRunCmd = "/some/path/here/script $TARGET$ $PORT$"
	all.PortBanner = "*** UNAUTHORIZED ACCESS PROHIBITED *** YOUR CONNECTION ATTEMPT HAS BEEN LOGGED."

	for name, want := range map[string]*Config{
		"debian-1.2.conf": &debian, "example-2.0.7.conf": &plain, "example-2.0.7-all.conf": &all,
	} {
		c, err := Load(filepath.Join("testdata", name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !same(c, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, effective(t, c), effective(t, want))
		}
	}
}

func TestLoadMissing(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "portsentry.conf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := LoadIgnore(filepath.Join(t.TempDir(), "portsentry.ignore")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestSyntax goes through the forms that 1.x or 2.x read: the same one port
// and banner come out of each.
func TestSyntax(t *testing.T) {
	for name, text := range map[string]string{
		"plain":                    "TCP_PORTS=\"11\"\nPORT_BANNER=\"go\"\n",
		"no final newline":         "TCP_PORTS=\"11\"\nPORT_BANNER=\"go\"",
		"CRLF":                     "TCP_PORTS=\"11\"\r\n\r\nPORT_BANNER=\"go\"\r\n",
		"CRLF, no final newline":   "TCP_PORTS=\"11\"\r\nPORT_BANNER=\"go\"\r",
		"blanks round =":           "TCP_PORTS = \"11\"\nPORT_BANNER\t= \t\"go\"\n",
		"blanks for = (1.x)":       "TCP_PORTS \"11\"\nPORT_BANNER \"go\"\n",
		"leading blanks":           "  TCP_PORTS=\"11\"\n\tPORT_BANNER=\"go\"\n",
		"comments":                 "# a\n #b\n\t# c\n#TCP_PORTS=\"12\"\nTCP_PORTS=\"11\"\nPORT_BANNER=\"go\"\n#",
		"trailing comments":        "TCP_PORTS=\"11\" # eleven\nPORT_BANNER=\"go\"#x\n",
		"trailing blanks":          "TCP_PORTS=\"11\"  \nPORT_BANNER=\"go\"\t\n",
		"lines of blanks":          "   \n\t\nTCP_PORTS=\"11\"\n \nPORT_BANNER=\"go\"\n\n",
		"empty values":             "TCP_PORTS=\"11\"\nPORT_BANNER=\"go\"\nUDP_PORTS=\"\"\nBLOCKED_FILE=\"\"\nKILL_ROUTE=\"\"\nSCAN_TRIGGER=\"\"\nBLOCK_TCP=\"\"\nBAN_TIME=\"\"\n",
		"values of blanks":         "TCP_PORTS=\"11\"\nPORT_BANNER=\"go\"\nUDP_PORTS=\"  \"\nKILL_ROUTE=\" \"\n",
		"byte order mark":          "\xef\xbb\xbfTCP_PORTS=\"11\"\nPORT_BANNER=\"go\"\n",
		"the same twice":           "TCP_PORTS=\"11\"\nPORT_BANNER=\"go\"\nTCP_PORTS=\"11\"\n",
		"blanks and empty entries": "TCP_PORTS=\" 11 ,, 11\t,\"\nPORT_BANNER=\"go\"\n",
		"blanks in numbers":        "TCP_PORTS=\"11\"\nPORT_BANNER=\"go\"\nBLOCK_TCP=\" 0 \"\nRESOLVE_HOST=\"0 \"\nSCAN_TRIGGER=\" 0\"\nBAN_TIME=\" 1h \"\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := mustParse(t, text)
			want := mustParse(t, "TCP_PORTS=\"11\"\nPORT_BANNER=\"go\"\n")
			if !same(c, want) {
				t.Errorf("got\n%s", effective(t, c))
			}
		})
	}
	long := strings.Repeat("x", 40000)
	if c := mustParse(t, `TCP_PORTS="1"`+"\n"+`KILL_RUN_CMD="`+long+`"`); c.KillRunCmd != long {
		t.Error("a long line was cut")
	}
	if c := mustParse(t, `PORT_BANNER="`+long[:1024]+`"`); len(c.PortBanner) != 1024 {
		t.Error("a banner was cut")
	}
}

func TestValues(t *testing.T) {
	c := mustParse(t, `
TCP_PORTS = "25,20-22,23,5-7,6-9,65535,1"
ADVANCED_PORTS_UDP = "65536"
ADVANCED_EXCLUDE_UDP = "1-100,90-200"
INTERFACES = "eth0, wg0 br-lan.12,eth0"
CAPTURE = "afpacket"
LOG_FORMAT = "json"
SCAN_DETECT = "full"
SCAN_TRIGGER = "2147483647"
SCAN_TRIGGER_WINDOW = "1d"
BLOCK_TCP = "1"
BLOCK_UDP = "2"
BLOCK_METHOD = "nftables, route"
BLOCK_EVIDENCE = "verified"
BAN_TIME = "366d"
BAN_TIME_UNVERIFIED = "90"
BAN_TIME_FACTOR = " 3 "
BAN_TIME_MAX = "4w"
DATABASE_FILE = "/var/lib/db"
DATABASE_KEEP = "1d"
DATABASE_SIZE = "8"
GEO_FILES = "/a.mmdb, /b c.mmdb,"
METRICS_LISTEN = "[::1]:9797"
KILL_ROUTE6 = "ip -6 route add blackhole $TARGET$"
KILL_ROUTE_UNDO = "ip -$FAMILY$ route del blackhole $TARGET$"
KILL_RUN_CMD = "x $TARGET$ $PORT$ $MODE$ $PROTO$ $DIRECTION$ $KIND$ $COUNT$ $EVIDENCE$ $FAMILY$ $$ $HOME $A$B ${C}$D \%c #'"
KILL_RUN_CMD_UNDO = "y	z"
KILL_RUN_CMD_FIRST = "1"
RESOLVE_HOST = "1"
PORT_BANNER = " grüße, # no comment "
`)
	want := &Config{
		TCPPorts:         PortSet{{1, 1}, {5, 9}, {20, 23}, {25, 25}, {65535, 65535}},
		AdvancedPortsUDP: 65536, AdvancedExcludeUDP: PortSet{{1, 200}},
		Interfaces: []string{"eth0", "wg0", "br-lan.12"}, Capture: CaptureAFPacket, LogFormat: LogJSON,
		ScanDetect: DetectFull, ScanTrigger: 1<<31 - 1, ScanTriggerWindow: 24 * time.Hour,
		BlockTCP: BlockBan, BlockUDP: BlockCommand, Modes: Modes{Stealth, Stealth}, BlockMethods: []Method{MethodNftables, MethodRoute}, BlockEvidence: EvidenceVerified,
		BanTime: 366 * 24 * time.Hour, BanTimeUnverified: 90 * time.Second, BanTimeFactor: 3, BanTimeMax: 4 * week,
		DatabaseFile: "/var/lib/db", DatabaseKeep: 24 * time.Hour, DatabaseSize: 8, GeoFiles: []string{"/a.mmdb", "/b c.mmdb"},
		MetricsListen: "[::1]:9797",
		KillRoute6:    "ip -6 route add blackhole $TARGET$", KillRouteUndo: "ip -$FAMILY$ route del blackhole $TARGET$",
		KillRunCmd:     `x $TARGET$ $PORT$ $MODE$ $PROTO$ $DIRECTION$ $KIND$ $COUNT$ $EVIDENCE$ $FAMILY$ $$ $HOME $A$B ${C}$D \%c #'`,
		KillRunCmdUndo: "y\tz", KillRunCmdFirst: true, ResolveHost: true, PortBanner: " grüße, # no comment ",
	}
	if !same(c, want) {
		t.Errorf("got\n%s\nwant\n%s", effective(t, c), effective(t, want))
	}
}

func TestMethods(t *testing.T) {
	for value, want := range map[string]string{
		"": "none", "none": "none", "auto": "auto", " auto ,": "auto", "dryrun": "dryrun",
		"route": "route", "nftables,route": "nftables,route", " route ,\tipset,nftables,,": "route,ipset,nftables",
		"xdp": "xdp", "xdp,nftables": "xdp,nftables",
	} {
		c := mustParse(t, `BLOCK_METHOD="`+value+`"`)
		if got := showMethods(c.BlockMethods); got != want || slices.Contains(c.BlockMethods, MethodNone) {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1": time.Second, "90": 90 * time.Second, "90s": 90 * time.Second, "10m": 10 * time.Minute, "1h": time.Hour,
		"1d": 24 * time.Hour, "2w": 14 * 24 * time.Hour, "1h30m": 90 * time.Minute, "1w2d3h4m5s": (9*24+3)*time.Hour + 245*time.Second,
		"52w2d": 366 * 24 * time.Hour, "0h1s": time.Second,
	} {
		d, problem := parseDuration(text)
		if problem != "" || d != want {
			t.Errorf("%q: %v %s, want %v", text, d, problem, want)
		}
		if back, problem := parseDuration(showDuration(d)); back != d || problem != "" {
			t.Errorf("%q shown as %q, read as %v %s", text, showDuration(d), back, problem)
		}
	}
	for _, text := range []string{"0", "0s", "367d", "53w", "52w3d", "1.5h", "1h1h", "30m1h", "h", "1H", "1 h", "-1", "1y", "99999999999", "99999999999w", "1h30"} {
		if d, problem := parseDuration(text); problem == "" {
			t.Errorf("%q was read as %v", text, d)
		}
	}
}

const week = 7 * 24 * time.Hour

func TestEffective(t *testing.T) {
	c := mustParse(t, "TCP_PORTS=\"3,1,2\"\n\nBAN_TIME=\"90m\"\nBLOCKED_FILE=\"\"\n")
	const want = `# watched: 3 TCP ports (stealth), UDP not at all
TCP_PORTS="1-3" # line 1
UDP_PORTS="" # default
ADVANCED_PORTS_TCP="" # default
ADVANCED_PORTS_UDP="" # default
ADVANCED_EXCLUDE_TCP="" # default
ADVANCED_EXCLUDE_UDP="" # default
INTERFACES="" # default
CAPTURE="auto" # default
IGNORE_FILE="" # default
HISTORY_FILE="" # default
BLOCKED_FILE="" # default
SOURCES_FILE="" # default
DATABASE_FILE="" # default
DATABASE_KEEP="12w" # default
DATABASE_SIZE="256" # default
GEO_FILES="" # default
RESOLVE_HOST="0" # default
LOG_FORMAT="2.x" # default
METRICS_LISTEN="" # default
SCAN_DETECT="traps" # default
SCAN_TRIGGER="0" # default
SCAN_TRIGGER_WINDOW="" # default
BLOCK_TCP="0" # default
BLOCK_UDP="0" # default
BLOCK_METHOD="none" # default
BLOCK_EVIDENCE="any" # default
VERIFY_SOURCE="0" # default
BAN_TIME="1h30m" # line 3
BAN_TIME_UNVERIFIED="10m" # default
BAN_TIME_FACTOR="2" # default
BAN_TIME_MAX="1w" # default
KILL_ROUTE="" # default
KILL_ROUTE6="" # default
KILL_ROUTE_UNDO="" # default
KILL_HOSTS_DENY="" # default
KILL_RUN_CMD="" # default
KILL_RUN_CMD_UNDO="" # default
KILL_RUN_CMD_FIRST="0" # default
PORT_BANNER="" # default
`
	if got := effective(t, c); got != want {
		t.Errorf("got\n%s", got)
	}
	for key, line := range map[string]int{"TCP_PORTS": 1, "BAN_TIME": 3, "BLOCKED_FILE": 0, "UDP_PORTS": 0, "NONE_SUCH": 0} {
		if got := c.Line(key); got != line {
			t.Errorf("Line(%s) = %d, want %d", key, got, line)
		}
	}
}

func TestPortSetMerged(t *testing.T) {
	v := "65535,1-3,2,4,10-20,15-30,65534,9"
	set, problems := parsePorts(v)
	if problems != nil {
		t.Fatal(problems)
	}
	if got, want := set.String(), "1-4,9-30,65534-65535"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	b, n := set.Bitmap(), 0
	for p := range 1 << 16 {
		if b.Has(uint16(p)) != set.Has(uint16(p)) {
			t.Errorf("port %d: bitmap and set differ", p)
		}
		if b.Has(uint16(p)) {
			n++
		}
	}
	if n != set.Count() || !slices.IsSortedFunc(set, func(a, b PortRange) int { return int(a.First) - int(b.First) }) {
		t.Errorf("%d ports, Count says %d", n, set.Count())
	}
}
