package host

import (
	"net/netip"
	"strings"
	"testing"
)

func TestHostName(t *testing.T) {
	long := strings.Repeat("a.", 126) // with one more letter 253
	for said, want := range map[string]string{
		"":                           "",
		".":                          "",
		"scan.example.":              "scan.example",
		"scan.example":               "scan.example",
		"scan.example..":             "",
		".example":                   "",
		"a..b":                       "",
		"localhost":                  "localhost",
		"Host_1.x--y.EXAMPLE":        "Host_1.x--y.EXAMPLE",
		"-a.example":                 "",
		"a-.example":                 "",
		"xn--bcher-kva.example":      "xn--bcher-kva.example",
		"bücher.example":             "",
		"two words":                  "",
		"a/b":                        "",
		"a\nb":                       "",
		"a\x00":                      "",
		"$(reboot).example":          "",
		"1.example":                  "1.example",
		"4-3-2-1.isp.example":        "4-3-2-1.isp.example",
		"4.3.2.isp.example":          "4.3.2.isp.example",
		"v1.2.3x.example":            "v1.2.3x.example",
		"10.77.0.2":                  "",
		"10.77.0.2.":                 "",
		"10.77.2":                    "",
		"0x0a4d0002":                 "",
		"scan.0X1f":                  "",
		"scan.0x":                    "",
		"scan.0xfg":                  "scan.0xfg",
		"example.7":                  "",
		"fd77::2":                    "",
		"10.77.0.34.evil":            "", // the one that made 1.x block a host again and again
		"10.77.0.2-x.evil":           "", // the one that made another host immune
		"x10.77.0.2":                 "",
		"a10.77.0.34b.evil":          "",
		"static.34.0.77.10.isp.test": "",
		"999.1000.0.1.example":       "",
		strings.Repeat("a", 63):      strings.Repeat("a", 63),
		strings.Repeat("a", 64):      "",
		long + "b":                   long + "b",
		long + "b.":                  long + "b",
		long + "bc":                  "",
	} {
		if got := hostName(said); got != want {
			t.Errorf("hostName(%q) = %q, want %q", said, got, want)
		}
	}
}

// FuzzHostName: what is taken for a name cannot end a word or a line, is no
// address and has none in it, and is taken again as it is.
func FuzzHostName(f *testing.F) {
	for _, s := range []string{"scan.example.", "10.77.0.2-x.evil", "0x7f.1", "a..b", "1.2.3.4", "1.2.3.a4.5.6.7b.x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, said string) {
		name := hostName(said)
		if name == "" {
			return
		}
		if name != said && name+"." != said {
			t.Errorf("%q became %q", said, name)
		}
		if strings.ContainsFunc(name, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r)
		}) || len(name) > 253 {
			t.Errorf("%q is no host name", name)
		}
		for i := range name {
			for j := i + 7; j <= min(len(name), i+15); j++ {
				if a, err := netip.ParseAddr(name[i:j]); err == nil {
					t.Errorf("%q holds %v", name, a)
				}
			}
		}
		if again := hostName(name); again != name {
			t.Errorf("%q was a name and is now %q", name, again)
		}
	})
}
