package config

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// TestMistakes has one file a row, "TCP_PORTS" on line 1 unless the row sets
// it, and every line that Parse says about it.
func TestMistakes(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		// lines
		{`hello world`, `f:2: "hello world" is no setting (KEY="value") and no comment (# first)`},
		{`="1"`, `f:2: "=\"1\"" is no setting (KEY="value") and no comment (# first)`},
		{`; BLOCK_TCP="1"`, `f:2: "; BLOCK_TCP=\"1\"" is no setting (KEY="value") and no comment (# first)`},
		{`BLOCK_TCP"1"`, `f:2: "BLOCK_TCP\"1\"" is no setting (KEY="value") and no comment (# first)`},
		{`BLOCK_TCP="1`, `f:2: BLOCK_TCP: the closing quote is missing after "1"`},
		{`BLOCK_TCP=1`, `f:2: BLOCK_TCP: "1" does not stand in quotes; did you mean BLOCK_TCP="1"?`},
		{`BLOCK_TCP='1' # x`, `f:2: BLOCK_TCP: "'1'" does not stand in quotes; did you mean BLOCK_TCP="1"?`},
		{`BLOCK_TCP=“1”`, `f:2: BLOCK_TCP: "“1”" does not stand in quotes; did you mean BLOCK_TCP="1"?`},
		{`BLOCK_TCP= # 1`, `f:2: BLOCK_TCP: no value; write BLOCK_TCP="" to leave it unset`},
		{`KILL_RUN_CMD=logger "scan"`, `f:2: KILL_RUN_CMD: "logger \"scan\"" does not stand in quotes ("...")`},
		{`KILL_RUN_CMD="logger "scan""`, `f:2: KILL_RUN_CMD: "scan\"\"" follows the closing quote; a value ends at its first ", so use ' inside, or put # before a comment`},
		{`BLOCK_TCP="0";`, `f:2: BLOCK_TCP: ";" follows the closing quote; a value ends at its first ", so use ' inside, or put # before a comment`},
		{"PORT_BANNER=\"a\x00b\"", `f:2: a NUL byte; is this a text file, and not saved as UTF-16?`},
		{`#` + strings.Repeat("x", maxLine), `f:2: 65537 bytes are too long for a line (65536 at most)`},

		// keys
		{`BLOCK_TPC="1"`, `f:2: BLOCK_TPC: no such key; did you mean BLOCK_TCP?`},
		{`block_tcp="0"`, `f:2: block_tcp: no such key; keys are in capitals: BLOCK_TCP`},
		{`BLOCK-TCP="0"`, `f:2: BLOCK-TCP: no such key; did you mean BLOCK_TCP?`},
		{`KILL="x"`, `f:2: KILL: no such key; did you mean KILL_ROUTE?`},
		{`T="1"`, `f:2: T: no such key; did you mean TCP_PORTS?`},
		{`WHATEVER_ELSE="1"`, `f:2: WHATEVER_ELSE: no such key`},
		{`BLOCK_TPC=0`, "f:2: BLOCK_TPC: \"0\" does not stand in quotes; did you mean BLOCK_TPC=\"0\"?\nf:2: BLOCK_TPC: no such key; did you mean BLOCK_TCP?"},
		{"BLOCK_UDP=\"0\"\nBLOCK_UDP=\"1\"\nBLOCK_METHOD=\"auto\"", `f:3: BLOCK_UDP is set twice (line 2 says 0, this says 1); PortSentry 1.x took the first, 2.x the last: keep one`},
		{"IGNORE_FILE=\"\"\nIGNORE_FILE=\"/a b\"", `f:3: IGNORE_FILE is set twice (line 2 says nothing, this says "/a b"); PortSentry 1.x took the first, 2.x the last: keep one`},

		// ports
		{`UDP_PORTS="1,11,70000"`, `f:2: UDP_PORTS: "1,11,70000": 70000 is no port (1 to 65535)`},
		{`UDP_PORTS="0,1-65536,99999999999999999999"`, "f:2: UDP_PORTS: \"0,1-65536,99999999999999999999\": 0 is no port (1 to 65535)\n" +
			"f:2: UDP_PORTS: \"0,1-65536,99999999999999999999\": 65536 is no port (1 to 65535)\n" +
			"f:2: UDP_PORTS: \"0,1-65536,99999999999999999999\": 99999999999999999999 is no port (1 to 65535)"},
		{`UDP_PORTS="20-10"`, `f:2: UDP_PORTS: "20-10": 20-10 runs backwards; did you mean 10-20?`},
		{`UDP_PORTS="10-"`, `f:2: UDP_PORTS: "10-": 10- has no end; did you mean 10 or 10-65535?`},
		{`UDP_PORTS="-10"`, `f:2: UDP_PORTS: "-10": -10 has no start; did you mean 10 or 1-10?`},
		{`UDP_PORTS="20 - 25"`, `f:2: UDP_PORTS: "20 - 25": "20 - 25" is no port (1 to 65535); did you mean 20-25?`},
		{`UDP_PORTS="20:25"`, `f:2: UDP_PORTS: "20:25": 20:25 is no port (1 to 65535); did you mean 20-25?`},
		{`UDP_PORTS="20–25"`, `f:2: UDP_PORTS: "20–25": "20–25" is no port (1 to 65535); did you mean 20-25?`},
		{`UDP_PORTS="1 11 15"`, `f:2: UDP_PORTS: "1 11 15": "1 11 15" is no port (1 to 65535); did you mean 1,11,15?`},
		{`UDP_PORTS="1;11"`, `f:2: UDP_PORTS: "1;11": "1;11" is no port (1 to 65535); did you mean 1,11?`},
		{`UDP_PORTS="ssh"`, `f:2: UDP_PORTS: "ssh": ssh is no port (1 to 65535)`},
		{`UDP_PORTS="+1"`, `f:2: UDP_PORTS: "+1": "+1" is no port (1 to 65535)`},
		{`UDP_PORTS=" , "`, `f:2: UDP_PORTS: " , ": no port in it`},
		{`ADVANCED_PORTS_TCP="65537"`, `f:2: ADVANCED_PORTS_TCP: "65537": must be a whole number from 2 to 65536; ports 1 to one below it are watched`},
		{`ADVANCED_PORTS_TCP="0"`, `f:2: ADVANCED_PORTS_TCP: "0": must be a whole number from 2 to 65536; ports 1 to one below it are watched`},
		{`ADVANCED_EXCLUDE_TCP="x"`, `f:2: ADVANCED_EXCLUDE_TCP: "x": x is no port (1 to 65535)`},

		// numbers and words
		{`SCAN_DETECT="all"`, `f:2: SCAN_DETECT: "all": must be traps or full`},
		{`SCAN_TRIGGER="2147483648"`, `f:2: SCAN_TRIGGER: "2147483648": must be a whole number from 0 to 2147483647`},
		{`SCAN_TRIGGER="-1"`, `f:2: SCAN_TRIGGER: "-1": must be a whole number from 0 to 2147483647`},
		{`SCAN_TRIGGER="15-20"`, `f:2: SCAN_TRIGGER: "15-20": must be a whole number from 0 to 2147483647`},
		{`BLOCK_TCP="3"`, `f:2: BLOCK_TCP: "3": must be 0 (log only), 1 (ban) or 2 (KILL_RUN_CMD only)`},
		{`RESOLVE_HOST="yes"`, `f:2: RESOLVE_HOST: "yes": must be 0 (no) or 1 (yes)`},
		{`KILL_RUN_CMD_FIRST="2"`, `f:2: KILL_RUN_CMD_FIRST: "2": must be 0 (no) or 1 (yes)`},
		{`BLOCK_METHOD="nft"`, `f:2: BLOCK_METHOD: "nft": must be none, auto, xdp, nftables, route, ipset or dryrun; did you mean nftables?`},
		{`BLOCK_METHOD="nftables,ipst,none of them"`, "f:2: BLOCK_METHOD: \"ipst\": must be none, auto, xdp, nftables, route, ipset or dryrun; did you mean ipset?\n" +
			`f:2: BLOCK_METHOD: "none of them": must be none, auto, xdp, nftables, route, ipset or dryrun`},
		{`BLOCK_METHOD="route,route"`, `f:2: BLOCK_METHOD: "route,route": route is there twice`},
		{`BLOCK_METHOD="none, route"`, `f:2: BLOCK_METHOD: "none, route": none stands alone`},
		{`BLOCK_METHOD="auto,route"`, `f:2: BLOCK_METHOD: "auto,route": auto chooses by itself and stands alone; leave it out to name several, such as "nftables,route"`},
		{`BLOCK_METHOD="auto,xdp"`, `f:2: BLOCK_METHOD: "auto,xdp": auto chooses by itself and stands alone; leave it out to name several, such as "nftables,route"`},
		{`BLOCK_METHOD="xpd"`, `f:2: BLOCK_METHOD: "xpd": must be none, auto, xdp, nftables, route, ipset or dryrun; did you mean xdp?`},
		{`BLOCK_METHOD="nftables,dryrun"`, `f:2: BLOCK_METHOD: "nftables,dryrun": dryrun bans nobody and stands alone`},
		{`BLOCK_METHOD=" , "`, `f:2: BLOCK_METHOD: " , ": no method in it`},
		{`BLOCK_METHOD="nftables route"`, `f:2: BLOCK_METHOD: "nftables route": must be none, auto, xdp, nftables, route, ipset or dryrun`},
		{`BLOCK_EVIDENCE="Verified"`, `f:2: BLOCK_EVIDENCE: "Verified": must be any or verified; did you mean verified?`},
		{`CAPTURE="pcap"`, `f:2: CAPTURE: "pcap": must be auto, xdp or afpacket`},
		{`LOG_FORMAT="2"`, `f:2: LOG_FORMAT: "2": must be 2.x, 1.x or json; did you mean 2.x?`},
		{`BAN_TIME="1 hour"`, `f:2: BAN_TIME: "1 hour": no length of time; write it like 90s, 10m, 1h30m, 1d or 2w`},
		{`BAN_TIME_FACTOR="0"`, `f:2: BAN_TIME_FACTOR: "0": must be a whole number from 1 to 100`},
		{`DATABASE_SIZE="4G"`, `f:2: DATABASE_SIZE: "4G": must be a whole number from 8 to 65536`},
		{`METRICS_LISTEN="9797"`, `f:2: METRICS_LISTEN: "9797": no address with a port, such as 127.0.0.1:9797 or [::1]:9797, nor the path of a socket`},
		{`BAN_TIME="0"`, `f:2: BAN_TIME: "0": must be from 1s to 366d`},
		{`SCAN_TRIGGER_WINDOW="0"`, `f:2: SCAN_TRIGGER_WINDOW: "0": must be from 1s to 366d; leave it empty for "for ever"`},
		{`INTERFACES="eth0,averyveryverylongname,a/b,ALL"`, "f:2: INTERFACES: averyveryverylongname is no interface name: 21 bytes (15 at most)\n" +
			"f:2: INTERFACES: a/b is no interface name (no \"/\", \":\" or blank in it)\n" +
			"f:2: INTERFACES: ALL is no interface; leave INTERFACES empty for every one that holds an address"},
		{`INTERFACES=","`, `f:2: INTERFACES: ",": no interface in it`},

		// texts and templates
		{"PORT_BANNER=\"a\x1b[1m\"", `f:2: PORT_BANNER: a control character (U+001B) at byte 2 of the value`},
		{`PORT_BANNER="` + strings.Repeat("x", 1025) + `"`, `f:2: PORT_BANNER: a banner of 1025 bytes is too long (1024 at most)`},
		{"HISTORY_FILE=\"/a\rb\"", `f:2: HISTORY_FILE: a control character (U+000D) at byte 3 of the value`},
		{`HISTORY_FILE="/` + strings.Repeat("a", 4095) + `"`, `f:2: HISTORY_FILE: a path of 4096 bytes is too long (4095 at most)`},
		{`KILL_ROUTE="/sbin/route add"`, `f:2: KILL_ROUTE: has no $TARGET$, so it would never name the scanner`},
		{`KILL_ROUTE6="ip -6 $PORT$"`, `f:2: KILL_ROUTE6: has no $TARGET$, so it would never name the scanner`},
		{`KILL_HOSTS_DENY="ALL: $TARGET : DENY"`, `f:2: KILL_HOSTS_DENY: has no $TARGET$, so it would never name the scanner; TARGET needs a $ on both sides`},
		{`KILL_ROUTE="x $TARGT$"`, `f:2: KILL_ROUTE: $TARGT$ is no token of ours; did you mean $TARGET$?`},
		{`KILL_ROUTE="x $target$"`, `f:2: KILL_ROUTE: $target$ is no token of ours; did you mean $TARGET$?`},
		{`KILL_RUN_CMD="x $TARGET$ $HOSTNAME$"`, `f:2: KILL_RUN_CMD: $HOSTNAME$ is no token of ours`},

		// one with another
		{`BLOCK_TCP="1"`, `f:2: BLOCK_TCP: "1": nothing to ban with; set BLOCK_METHOD="auto", KILL_ROUTE or KILL_HOSTS_DENY, or write "0" to log only`},
		{`BLOCK_UDP="2"`, `f:2: BLOCK_UDP: "2": no command to run; set KILL_RUN_CMD, or BLOCK_METHOD="auto", or write "0" to log only`},
		{"BLOCK_UDP=\"2\"\nKILL_ROUTE=\"x $TARGET$\"", `f:2: BLOCK_UDP: "2": no command to run; set KILL_RUN_CMD, or BLOCK_METHOD="auto", or write "0" to log only`},
		{`KILL_ROUTE_UNDO="x $TARGET$"`, `f:2: KILL_ROUTE_UNDO: nothing to undo: KILL_ROUTE or KILL_ROUTE6 is not set`},
		{`KILL_RUN_CMD_UNDO="x"`, `f:2: KILL_RUN_CMD_UNDO: nothing to undo: KILL_RUN_CMD is not set`},

		// what follows from a mistake is no second one
		{"BLOCK_TCP=\"1\"\nBLOCK_METHOD=\"?\"", `f:3: BLOCK_METHOD: "?": must be none, auto, xdp, nftables, route, ipset or dryrun`},
		{"BLOCK_TCP=\"1\"\nKIL_ROUTE=\"x $TARGET$\"", `f:3: KIL_ROUTE: no such key; did you mean KILL_ROUTE?`},
		{"BLOCK_TCP=\"1\"\nKILL_ROUTE=x", `f:3: KILL_ROUTE: "x" does not stand in quotes; did you mean KILL_ROUTE="x"?`},
		{"KILL_ROUTE_UNDO=\"x\"\nKILL_ROUTE=\"x\"", `f:3: KILL_ROUTE: has no $TARGET$, so it would never name the scanner`},

		// no mistakes
		{"BLOCK_TCP=\"1\"\nKILL_HOSTS_DENY=\"ALL: $TARGET$\"", ``},
		{"BLOCK_TCP=\"1\"\nKILL_ROUTE6=\"x $TARGET$\"\nKILL_ROUTE_UNDO=\"y\"", ``},
		{"BLOCK_TCP=\"1\"\nBLOCK_UDP=\"2\"\nKILL_RUN_CMD=\"x\"", ``},
		{"BLOCK_TCP=\"1\"\nBLOCK_UDP=\"2\"\nBLOCK_METHOD=\"auto\"", ``},
		{"BLOCK_TCP=\"2\"\nBLOCK_METHOD=\"route,ipset\"", `f:2: BLOCK_TCP: "2": no command to run, and BLOCK_METHOD="route,ipset" cannot ban one protocol alone; set KILL_RUN_CMD, add nftables, or write "1"`},
		{"BLOCK_TCP=\"2\"\nBLOCK_METHOD=\"route,nftables\"", ``},
	} {
		_, err := Parse("f", []byte("TCP_PORTS=\"1\"\n"+tt.text))
		if got := strings.Join(mistakes(t, err), "\n"); got != tt.want {
			t.Errorf("%.80q\n got %s\nwant %s", tt.text, got, tt.want)
		}
	}
}

func TestBounds(t *testing.T) {
	_, err := Parse("f", []byte(strings.Repeat("#", maxFile+1)))
	if got, want := mistakes(t, err), fmt.Sprintf("f: more than %d bytes; this is no portsentry.conf", maxFile); len(got) != 1 || got[0] != want {
		t.Errorf("got %q", got)
	}
	_, err = Parse("f", []byte(strings.Repeat("?\n", maxFile/2)))
	got := mistakes(t, err)
	if len(got) != maxMistakes+1 || got[maxMistakes] != fmt.Sprintf("f:100: and %d more mistakes", maxFile/2-maxMistakes) {
		t.Errorf("%d lines, the last is %q", len(got), got[len(got)-1])
	}
}

func TestMistakesAreShownOnOneLine(t *testing.T) {
	_, err := Parse("f", []byte("TCP_PORTS=\"1\"\nUDP_PORTS=\"\x1b[31m\u009b,"+strings.Repeat("é", 50)+"\"\nBLOCK_TCP=\x1b]0;x\n"))
	got := mistakes(t, err)
	for _, r := range err.Error() {
		if r != '\n' && !strconv.IsPrint(r) {
			t.Errorf("%U in %q", r, got)
		}
	}
	if len(got) != 3 {
		t.Errorf("got %q", got)
	}
}
