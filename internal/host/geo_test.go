package host

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// geoFile writes a database of networks and their records, over another one as
// the programs that fetch them do.
func geoFile(t testing.TB, path string, records map[string]mmdbtype.DataType) string {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test", RecordSize: 24, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for network, record := range records {
		_, n, err := net.ParseCIDR(network)
		if err == nil {
			err = tree.Insert(n, record)
		}
		if err != nil {
			t.Fatal(network, err)
		}
	}
	f, err := os.Create(path + ".new")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := tree.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

func inCountry(code string) mmdbtype.DataType {
	return mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(code), "geoname_id": mmdbtype.Uint32(1)}}
}

func inSystem(n uint32) mmdbtype.DataType {
	return mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(n), "autonomous_system_organization": mmdbtype.String("Example")}
}

// places are the databases of most tests, and what is wanted of them.
func places(t testing.TB) (files []string, wanted GeoWanted) {
	t.Helper()
	dir := t.TempDir()
	return []string{
		geoFile(t, filepath.Join(dir, "country.mmdb"), map[string]mmdbtype.DataType{
			"192.0.2.0/25": inCountry("IS"), "192.0.2.128/25": inCountry("IS"), "198.51.100.0/24": inCountry("NO"),
			"203.0.113.0/26": inCountry("DE"), "2001:db8:1::/48": inCountry("IS"), "2001:db8:2::/48": inCountry("SE"),
		}),
		geoFile(t, filepath.Join(dir, "asn.mmdb"), map[string]mmdbtype.DataType{
			"203.0.113.128/25": inSystem(64496), "2001:db8:9::/48": inSystem(64496), "198.18.0.0/15": inSystem(64497),
		}),
	}, GeoWanted{Countries: []string{"NO", "IS"}, Systems: []uint32{64496}}
}

func TestGeo(t *testing.T) {
	files, wanted := places(t)
	n := ReadGeo(t.Context(), files, wanted)
	if len(n.Problems()) > 0 || len(n.Missing()) > 0 {
		t.Fatalf("%q, %q", n.Problems(), n.Missing())
	}
	for _, c := range []struct{ prefix, entry string }{
		{"192.0.2.0/32", "country:IS"}, {"192.0.2.255/32", "country:IS"}, {"192.0.1.255/32", ""}, {"192.0.3.0/32", ""},
		{"198.51.100.7/32", "country:NO"}, {"203.0.113.1/32", ""}, {"203.0.113.127/32", ""}, {"203.0.113.128/32", "AS64496"},
		{"198.18.0.1/32", ""}, {"2001:db8:1::/128", "country:IS"}, {"2001:db8:1:ffff:ffff:ffff:ffff:ffff/128", "country:IS"},
		{"2001:db8:2::1/128", ""}, {"2001:db8:9:1::1/128", "AS64496"}, {"::1/128", ""}, {"ffff::/128", ""}, {"255.255.255.255/32", ""},
		// a range that somebody of them is in
		{"192.0.2.64/26", "country:IS"}, {"192.0.0.0/16", "country:IS"}, {"0.0.0.0/0", "country:IS"}, {"2001:db8:1:5::/64", "country:IS"},
		{"2001:db8::/32", "country:IS"}, {"203.0.113.0/25", ""}, {"203.0.113.0/24", "AS64496"}, {"2001:db8:2::/48", ""},
	} {
		if got := n.Entry(netip.MustParsePrefix(c.prefix)); got != c.entry {
			t.Errorf("%s: %q, want %q", c.prefix, got, c.entry)
		}
	}
	few := n.Few()
	for _, p := range few {
		if n.Entry(p) == "" {
			t.Errorf("%s is for the kernel, and is nobody's", p)
		}
	}
	if len(few) < 5 {
		t.Errorf("for the kernel: %v", few)
	}
	p := netip.MustParsePrefix("203.0.113.200/32")
	if got := testing.AllocsPerRun(100, func() { n.Entry(p) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// Records as other makers of such files have them.
func TestGeoOtherMakers(t *testing.T) {
	path := geoFile(t, filepath.Join(t.TempDir(), "lite.mmdb"), map[string]mmdbtype.DataType{
		"192.0.2.0/24":    mmdbtype.Map{"country": mmdbtype.String("Iceland"), "country_code": mmdbtype.String("IS"), "asn": mmdbtype.String("AS64511")},
		"198.51.100.0/24": mmdbtype.Map{"country": mmdbtype.String("NO"), "asn": mmdbtype.String("AS64496")},
		"203.0.113.0/24":  mmdbtype.Map{"country": mmdbtype.Uint32(7), "asn": mmdbtype.String("none")},
		"198.18.0.0/15":   mmdbtype.String("no map at all"),
	})
	n := ReadGeo(t.Context(), []string{path}, GeoWanted{Countries: []string{"IS"}, Systems: []uint32{64496}})
	for prefix, want := range map[string]string{"192.0.2.1/32": "country:IS", "198.51.100.1/32": "AS64496", "203.0.113.1/32": "", "198.18.0.1/32": ""} {
		if got := n.Entry(netip.MustParsePrefix(prefix)); got != want {
			t.Errorf("%s: %q, want %q", prefix, got, want)
		}
	}
}

// What the kernel's lists have no room for is left out of them by entry.
func TestGeoFew(t *testing.T) {
	records := map[string]mmdbtype.DataType{"203.0.113.0/24": inCountry("IS")}
	for i := range maxGeoKernel + 1 { // two hosts in four: they do not touch
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 6), byte(i << 2)}), 31)
		records[p.String()] = inCountry("US")
	}
	path := geoFile(t, filepath.Join(t.TempDir(), "country.mmdb"), records)
	n := ReadGeo(t.Context(), []string{path}, GeoWanted{Countries: []string{"IS", "US"}})
	if few := n.Few(); len(few) != 1 || few[0] != netip.MustParsePrefix("203.0.113.0/24") {
		t.Errorf("%d networks for the kernel", len(few))
	}
	if got := n.Entry(netip.MustParsePrefix("198.18.4.4/32")); got != "country:US" {
		t.Errorf("%q", got)
	}
	if got := n.Entry(netip.MustParsePrefix("198.18.4.6/32")); got != "" {
		t.Errorf("%q", got)
	}
}

func TestGeoMistakes(t *testing.T) {
	files, wanted := places(t)
	dir := t.TempDir()
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name    string
		files   []string
		problem string
		missing string
	}{
		{"none", nil, "", "AS64496: GEO_FILES names no database to look it up in"},
		{"not there", []string{dir + "/x.mmdb"}, "x.mmdb: no such file or directory", "AS64496: no file of GEO_FILES that can be read knows autonomous systems"},
		{"a folder", []string{dir}, dir + ": not a file", "country:IS: no file of GEO_FILES that can be read knows countries"},
		{"empty", []string{write("empty", nil)}, "empty: ", "country:IS: "},
		{"text", []string{write("text", []byte("127.0.0.1\n"))}, "text: ", "country:IS: "},
		{"cut short", []string{write("short", whole[:len(whole)/2])}, "short: ", "country:IS: "},
		{"one of two", files[:1], "", "AS64496: no file of GEO_FILES that can be read knows autonomous systems"},
	} {
		n := ReadGeo(t.Context(), c.files, wanted)
		var missing []string
		for _, m := range n.Missing() {
			missing = append(missing, m.Entry+": "+m.Why)
		}
		if got := strings.Join(n.Problems(), "\n"); !strings.Contains(got, c.problem) || c.problem == "" && got != "" {
			t.Errorf("%s: %s", c.name, got)
		}
		if got := strings.Join(missing, "\n"); !strings.Contains(got, c.missing) {
			t.Errorf("%s: %s", c.name, got)
		}
		if n.Entry(netip.MustParsePrefix("203.0.113.1/32")) != "" {
			t.Errorf("%s: somebody is found", c.name)
		}
	}
	n := ReadGeo(t.Context(), files, GeoWanted{Countries: []string{"XX"}})
	if m := n.Missing(); len(m) != 1 || m[0] != (GeoMissing{"country:XX", "no network of it is in GEO_FILES"}) {
		t.Errorf("%v", m)
	}
	// Bytes that are not as they should be make no panic, whatever they say.
	for i := 0; i < len(whole); i += 3 {
		b := append([]byte(nil), whole...)
		b[i] ^= 0xff
		ReadGeo(t.Context(), []string{write("bent", b)}, wanted)
	}
}

// A new file takes the place of the old one, and one that is broken leaves it.
func TestGeoReplaced(t *testing.T) {
	files, wanted := places(t)
	g := NewGeo()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	change := func() {
		t.Helper()
		select {
		case <-g.Changed():
		case <-time.After(10 * time.Second):
			t.Fatal("nothing changed")
		}
	}
	entry := func(what, prefix, want string) {
		t.Helper()
		if got := g.Networks().Entry(netip.MustParsePrefix(prefix)); got != want {
			t.Errorf("%s: %s is in %q, want %q", what, prefix, got, want)
		}
	}
	g.Set(files, wanted)
	change()
	entry("at first", "192.0.2.1/32", "country:IS")

	geoFile(t, files[0], map[string]mmdbtype.DataType{"198.18.0.0/24": inCountry("IS")})
	g.Look()
	change()
	entry("replaced", "192.0.2.1/32", "")
	entry("replaced", "198.18.0.1/32", "country:IS")
	entry("the other file", "203.0.113.200/32", "AS64496")

	if err := os.WriteFile(files[0], []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Look()
	change()
	entry("broken", "198.18.0.1/32", "country:IS")
	if p := g.Networks().Problems(); len(p) != 1 || !strings.HasSuffix(p[0], "; what was read of it before stands") {
		t.Errorf("%q", p)
	}
	g.Set(files, GeoWanted{Systems: wanted.Systems})
	change()
	entry("not wanted any more", "198.18.0.1/32", "")
	entry("the other file", "203.0.113.200/32", "AS64496")

	geoFile(t, files[0], map[string]mmdbtype.DataType{"198.51.100.0/24": inCountry("IS")})
	g.Set(files, wanted)
	change()
	entry("whole again", "198.51.100.1/32", "country:IS")
	if p := g.Networks().Problems(); len(p) != 0 {
		t.Errorf("%q", p)
	}
	g.Set(nil, GeoWanted{})
	change()
	entry("nothing wanted", "198.51.100.1/32", "")
}
