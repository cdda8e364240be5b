package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// checkMistakes asks that an error is *Mistakes of lines that are there, in
// order and fit for a terminal.
func checkMistakes(t *testing.T, data []byte, err error) {
	t.Helper()
	var m *Mistakes
	if !errors.As(err, &m) || len(*m) == 0 || len(*m) > maxMistakes+1 {
		t.Fatalf("%T: %v", err, err)
	}
	last, most := 0, bytes.Count(data, []byte("\n"))+1
	for _, one := range *m {
		if one.Line < last || one.Line > most || one.Text == "" || len(one.Text) > 1000 {
			t.Fatalf("%+v in a file of %d lines", one, most)
		}
		last = one.Line
		if s := one.String(); !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
			t.Fatalf("%q", s)
		}
	}
}

// FuzzParse: no text makes Parse panic; it gives either mistakes or a Config
// whose effective configuration is read as the same Config.
func FuzzParse(f *testing.F) {
	names, err := filepath.Glob(filepath.Join("testdata", "*.conf"))
	if err != nil || len(names) == 0 {
		f.Fatal("no files in testdata", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, line := range []string{
		`TCP_PORTS="1-9,5, 65535"` + "\r", ` tcp_ports = 1`, `UDP_PORTS "10-"`, `ADVANCED_PORTS_TCP="65536"`, `INTERFACES="a b,c"`,
		`BLOCK_TCP = "1" # c`, `BLOCK_METHOD="auto"`, `BAN_TIME="1w2d"`, `SCAN_TRIGGER_WINDOW="90"`, `SCAN_TRIGGER="3"`,
		`KILL_ROUTE="x $TARGET$ $A$B $X$"`, `KILL_RUN_CMD="$$ $KIND$"`, `PORT_BANNER="a\'é` + "\xff\t" + `"`, `LOG_FORMAT="1.x"`,
	} {
		f.Add([]byte(line))
		f.Add([]byte("TCP_PORTS=\"1\"\n" + line))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err != nil {
			checkMistakes(t, data, err)
			return
		}
		text := effective(t, c)
		back, err := Parse("effective", []byte(text))
		if err != nil {
			t.Fatalf("the effective configuration has mistakes: %v\n%s", err, text)
		}
		if !same(c, back) {
			t.Fatalf("written\n%s\nread\n%s", text, effective(t, back))
		}
	})
}

// FuzzParseIgnore: no text makes ParseIgnore panic; every entry is as it is kept,
// a network masked and none in the IPv4-mapped form, and is read as itself.
func FuzzParseIgnore(f *testing.F) {
	f.Add([]byte("10.0.0.99/24\n::ffff:1.2.3.4/120 # x\r\n2001:DB8::/32\n10.2\n010.1.1.1\n1.*\nfe80::1%e\n1.2.3.4/255.255.0.0\n[::1]:1\nhost.lan"))
	f.Add([]byte("Uptime.example.net.\ncountry:is\nAS64496\nas-1.2\n*.a.b\na_b\nhttp://a.bc/\ncc:uk\n\u00fc.de\n1.2.3.l0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseIgnore("f", data)
		if err != nil {
			checkMistakes(t, data, err)
		}
		for _, p := range list.Prefixes {
			if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
				t.Fatalf("%v", p)
			}
			if back, err := ParseIgnore("f", []byte(p.String())); err != nil || back.Count() != 1 || back.Prefixes[0] != p {
				t.Fatalf("%v is read as %v, %v", p, back, err)
			}
			if back, err := netip.ParsePrefix(p.String()); err != nil || back != p {
				t.Fatalf("%v is not canonical", p)
			}
		}
		for _, n := range list.Names {
			if _, err := netip.ParseAddr(n.Value); err == nil || n.Line < 1 {
				t.Fatalf("%+v", n)
			}
			if back, err := ParseIgnore("f", []byte(n.Value)); err != nil || back.Count() != 1 || back.Names[0].Value != n.Value {
				t.Fatalf("%v is read as %v, %v", n, back, err)
			}
		}
		for _, c := range list.Countries {
			if back, err := ParseIgnore("f", []byte("country:"+c.Value)); err != nil || back.Count() != 1 || back.Countries[0].Value != c.Value {
				t.Fatalf("%v is read as %v, %v", c, back, err)
			}
		}
		for _, s := range list.Systems {
			if back, err := ParseIgnore("f", fmt.Appendf(nil, "AS%d", s.Value)); err != nil || back.Count() != 1 || back.Systems[0].Value != s.Value {
				t.Fatalf("%v is read as %v, %v", s, back, err)
			}
		}
	})
}
