package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Geo finds in databases of countries and autonomous systems (MaxMind DB format)
// which networks the wanted ones have. A database is read through once, in the
// background, and closed: what is kept is no more than those networks. A file that
// cannot be read leaves what was read of it before. All methods are safe for
// concurrent use.
type Geo struct {
	found   atomic.Pointer[GeoNetworks]
	changed chan struct{}
	wake    chan struct{}

	mu     sync.Mutex
	files  []string
	wanted GeoWanted
	tables []*geoTable
	stale  bool // the files or what is wanted have changed
}

// GeoWanted is what is looked for.
type GeoWanted struct {
	Countries []string // two capitals, ISO 3166-1
	Systems   []uint32 // RFC 6793
}

// words are the entries as the ignore file has them.
func (w *GeoWanted) words() []string {
	var out []string
	for _, c := range w.Countries {
		out = append(out, "country:"+c)
	}
	for _, n := range w.Systems {
		out = append(out, fmt.Sprintf("AS%d", n))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// NewGeo gives a Geo that looks for nothing.
func NewGeo() *Geo {
	g := &Geo{changed: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	g.found.Store(new(GeoNetworks))
	return g
}

// ReadGeo looks once, and waits for it.
func ReadGeo(ctx context.Context, files []string, wanted GeoWanted) *GeoNetworks {
	return compose(readTables(ctx, files, wanted, nil), files, wanted)
}

// Set says what is looked for, and in which files.
func (g *Geo) Set(files []string, wanted GeoWanted) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if slices.Equal(g.files, files) && slices.Equal(g.wanted.words(), wanted.words()) {
		return
	}
	g.files, g.wanted, g.stale = slices.Clone(files), wanted, true
	touch(g.wake)
}

// Look says that a file may have changed.
func (g *Geo) Look() { touch(g.wake) }

// Networks are what was found so far.
func (g *Geo) Networks() *GeoNetworks { return g.found.Load() }

// Changed has a signal after each change of Networks.
func (g *Geo) Changed() <-chan struct{} { return g.changed }

// Run reads what has changed, until ctx ends. While nothing does it sleeps.
func (g *Geo) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.wake:
		}
		g.mu.Lock()
		files, wanted, tables, stale := g.files, g.wanted, g.tables, g.stale
		g.stale = false
		g.mu.Unlock()
		if !stale && !slices.ContainsFunc(tables, (*geoTable).outdated) {
			continue
		}
		tables = readTables(ctx, files, wanted, tables)
		if ctx.Err() != nil {
			return nil
		}
		g.mu.Lock()
		g.tables = tables
		g.mu.Unlock()
		g.found.Store(compose(tables, files, wanted))
		touch(g.changed)
	}
}

// geoTable is what was found in one file.
type geoTable struct {
	path      string
	stamp     geoStamp
	words     []string         // what was looked for
	ranges    []geoRange       // in order, none overlapping
	prefixes  [][]netip.Prefix // the same by word, as long as there are few
	countries bool             // the file knows countries, or
	systems   bool             // autonomous systems
	full      bool             // there is more than there was room for
	err       error            // why it is not what the file says now
}

// geoStamp changes when a file does.
type geoStamp struct {
	inode    uint64
	size     int64
	modified time.Time
}

func stampOf(path string) (s geoStamp, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return s, err
	}
	if !info.Mode().IsRegular() {
		return s, &fs.PathError{Op: "open", Path: path, Err: errors.New("not a file")}
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	s.size, s.modified = info.Size(), info.ModTime()
	return s, nil
}

// outdated reports whether the file is not the one that was read, or tried.
func (t *geoTable) outdated() bool {
	s, err := stampOf(t.path)
	return s != t.stamp || err == nil && errors.Is(t.err, fs.ErrNotExist)
}

// readTables reads the files, if wanted names anything; before is what was read of
// them last.
func readTables(ctx context.Context, files []string, wanted GeoWanted, before []*geoTable) []*geoTable {
	words := wanted.words()
	if len(words) == 0 {
		return nil
	}
	var out []*geoTable
	for _, path := range files {
		stamp, err := stampOf(path)
		var t *geoTable
		if err == nil {
			t, err = readTable(ctx, path, words)
		}
		if again, changed := stampOf(path); err == nil && (changed != nil || again != stamp) {
			err = errors.New("it changed while it was read")
		}
		if err != nil {
			t = &geoTable{path: path}
			if i := slices.IndexFunc(before, func(b *geoTable) bool { return b.path == path }); i >= 0 {
				t = before[i].only(words)
			}
			t.err = err
		}
		t.stamp = stamp
		out = append(out, t)
	}
	return out
}

// only is t without what is not among words.
func (t *geoTable) only(words []string) *geoTable {
	out := *t
	out.ranges = slices.DeleteFunc(slices.Clone(t.ranges), func(r geoRange) bool { return !slices.Contains(words, t.words[r.word]) })
	out.prefixes = slices.Clone(t.prefixes)
	for i, w := range t.words {
		if !slices.Contains(words, w) {
			out.prefixes[i] = nil
		}
	}
	return &out
}

// compose makes one of the tables.
func compose(tables []*geoTable, files []string, wanted GeoWanted) *GeoNetworks {
	n := &GeoNetworks{tables: tables}
	var countries, systems bool
	has := make(map[string]bool)
	for _, t := range tables {
		countries, systems = countries || t.countries, systems || t.systems
		for i := range t.ranges {
			has[t.words[t.ranges[i].word]] = true
		}
		switch {
		case t.err != nil && len(t.ranges) > 0:
			n.problems = append(n.problems, fmt.Sprintf("GEO_FILES: %s: %s; what was read of it before stands", t.path, reason(t.err)))
		case t.err != nil:
			n.problems = append(n.problems, fmt.Sprintf("GEO_FILES: %s: %s", t.path, reason(t.err)))
		case t.full:
			n.problems = append(n.problems, fmt.Sprintf("GEO_FILES: %s has more than %d networks of those in the ignore file; the rest of them are not spared", t.path, maxGeoRanges))
		}
	}
	for _, w := range wanted.words() {
		knows, what := countries, "countries"
		if !strings.HasPrefix(w, "country:") {
			knows, what = systems, "autonomous systems"
		}
		switch {
		case has[w]:
		case len(files) == 0:
			n.missing = append(n.missing, GeoMissing{w, "GEO_FILES names no database to look it up in"})
		case !knows:
			n.missing = append(n.missing, GeoMissing{w, "no file of GEO_FILES that can be read knows " + what})
		default:
			n.missing = append(n.missing, GeoMissing{w, "no network of it is in GEO_FILES"})
		}
	}
	return n
}

// reason is err without the path that stands before it anyway.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}
