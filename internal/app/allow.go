package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"portsentry/internal/config"
	"portsentry/internal/host"
	"portsentry/internal/judge"
)

// allowed are the entries of the ignore files that are no networks, looked up.
type allowed struct {
	names *host.AllowedNames
	geo   *host.Geo
	// inForce are the addresses of names that everybody has been told. keepHouse's.
	inForce map[netip.Addr]string
}

func newAllowed() allowed {
	return allowed{names: host.NewAllowedNames(host.AllowedNamesOptions{}), geo: host.NewGeo()}
}

// geoWanted are the countries and systems in i.
func geoWanted(i config.Ignore) host.GeoWanted {
	var w host.GeoWanted
	for _, c := range i.Countries {
		w.Countries = append(w.Countries, c.Value)
	}
	for _, s := range i.Systems {
		w.Systems = append(w.Systems, s.Value)
	}
	return w
}

// setAllowed has looked up what the ignore files name by now.
func (d *daemon) setAllowed(c *config.Config) {
	i := d.ignore.entries()
	names := make([]string, len(i.Names))
	for n, e := range i.Names {
		names[n] = e.Value
	}
	d.allowed.names.Set(names)
	d.allowed.geo.Set(c.GeoFiles, geoWanted(i))
	d.sayAllowed()
}

// trust is whom to spare as of now.
func (d *daemon) trust() *judge.Trust {
	d.allowed.inForce = d.allowed.names.Addresses()
	return d.facts.trust(d.ignore.prefixes(), d.allowed.inForce, d.allowed.geo.Networks())
}

// namesAnswered takes in what the names in the ignore file stand for now, and has
// decided what waited for that.
func (d *daemon) namesAnswered(ctx context.Context) {
	if !maps.Equal(d.allowed.inForce, d.allowed.names.Addresses()) {
		d.follow(ctx)
	}
	d.sayAllowed()
	if d.allowed.names.Taken() {
		touch(d.decider.settled)
	}
}

// maxSaid bounds the sentences about entries of one kind.
const maxSaid = 5

// sayAllowed says which entries of the ignore files spare nobody.
func (d *daemon) sayAllowed() {
	var said []string
	for _, n := range d.allowed.names.Unresolved() {
		why, but := "does not answer", "nobody is spared by it"
		if n.Missing {
			why = "has no address"
		}
		if n.Kept > 0 {
			but = fmt.Sprintf("the %d it had %s kept", n.Kept, plural(n.Kept, "is", "are"))
		}
		path, line := d.ignore.place(n.Name)
		said = append(said, fmt.Sprintf("%s:%d: %s %s: %s", path, line, n.Name, why, but))
	}
	d.problems.set("names", some(said))
	found := d.allowed.geo.Networks()
	d.problems.set("geo files", some(found.Problems()))
	said = nil
	for _, m := range found.Missing() {
		path, line := d.ignore.place(m.Entry)
		said = append(said, fmt.Sprintf("%s:%d: %s: %s", path, line, m.Entry, m.Why))
	}
	d.problems.set("geo entries", some(said))
}

// some are the first of the sentences, and how many more there are.
func some(sentences []string) string {
	if more := len(sentences) - maxSaid; more > 0 {
		sentences = append(sentences[:maxSaid:maxSaid], fmt.Sprintf("and %d more of these", more))
	}
	return strings.Join(sentences, "\n")
}

// otherNames are names less the addresses that are banned by force.
func (f *forced) otherNames(names map[netip.Addr]string) map[netip.Addr]string {
	if len(f.list()) == 0 {
		return names
	}
	out := make(map[netip.Addr]string)
	for _, a := range f.others(slices.Collect(maps.Keys(names))) {
		out[a] = names[a]
	}
	return out
}

// unforced are networks less what is banned by force.
type unforced struct {
	networks *host.GeoNetworks
	forced   []netip.Prefix
}

// Entry is for judge.Geo.
func (u unforced) Entry(p netip.Prefix) string {
	for _, f := range u.forced {
		if f.Bits() <= p.Bits() && f.Contains(p.Addr()) {
			return ""
		}
	}
	return u.networks.Entry(p)
}

// checkFiles looks at the files that c names, reads the ignore files and the databases,
// and gives what is wrong with them. A file that does not exist is no mistake: there need
// be none.
func checkFiles(ctx context.Context, c *config.Config) error {
	var all config.Mistakes
	files := openIgnore(c.IgnoreFile)
	for _, f := range files {
		_, err := config.LoadIgnore(f.path)
		var mistakes *config.Mistakes
		if errors.As(err, &mistakes) {
			all = append(all, *mistakes...)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, config.Mistake{File: c.Path, Line: c.Line("IGNORE_FILE"), Key: "IGNORE_FILE", Text: err.Error()})
		}
	}
	for _, kept := range []struct{ key, path string }{
		{"HISTORY_FILE", c.HistoryFile}, {"BLOCKED_FILE", c.BlockedFile}, {"SOURCES_FILE", c.SourcesFile}, {"DATABASE_FILE", c.DatabaseFile},
	} {
		if info, err := os.Stat(kept.path); err == nil && info.IsDir() {
			all = append(all, config.Mistake{File: c.Path, Line: c.Line(kept.key), Key: kept.key, Text: fmt.Sprintf("%q is a folder; name a file in it", kept.path)})
		}
	}
	found := host.ReadGeo(ctx, c.GeoFiles, geoWanted(files.entries()))
	for _, said := range found.Problems() {
		all = append(all, config.Mistake{File: c.Path, Line: c.Line("GEO_FILES"), Key: "GEO_FILES", Text: strings.TrimPrefix(said, "GEO_FILES: ")})
	}
	for _, m := range found.Missing() {
		path, line := files.place(m.Entry)
		all = append(all, config.Mistake{File: path, Line: line, Text: m.Entry + ": " + m.Why})
	}
	if len(all) == 0 {
		return nil
	}
	return &all
}
