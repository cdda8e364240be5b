package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2"
)

const (
	maxGeoRanges   = 1 << 19  // kept of one file, 36 bytes each
	maxGeoNetworks = 32 << 20 // looked at in one file
	maxGeoRecords  = 1 << 20  // remembered while a file is read; there are 100,000 where each system has one
	maxGeoKernel   = 4096     // networks that are worth a place in the kernel's lists
)

// GeoNetworks are the networks of what was wanted. It is immutable.
type GeoNetworks struct {
	tables   []*geoTable
	problems []string
	missing  []GeoMissing
}

// GeoMissing is an entry of the ignore file that nothing is known of, and why.
type GeoMissing struct{ Entry, Why string }

// Problems are what is wrong with the files, in sentences.
func (n *GeoNetworks) Problems() []string { return n.problems }

// Missing are the entries without a network.
func (n *GeoNetworks) Missing() []GeoMissing { return n.missing }

// geoRange is from one address to another, both included and in IPv6 form, and the
// index of the word that they belong to.
type geoRange struct {
	from, to [16]byte
	word     uint32
}

// Entry is the entry of the ignore file that p or a part of it belongs to, "" for
// none. It allocates nothing.
func (n *GeoNetworks) Entry(p netip.Prefix) string {
	if len(n.tables) == 0 {
		return ""
	}
	from, to := bounds(p)
	for _, t := range n.tables {
		i, _ := slices.BinarySearchFunc(t.ranges, from, func(r geoRange, from [16]byte) int { return bytes.Compare(r.to[:], from[:]) })
		if i < len(t.ranges) && bytes.Compare(t.ranges[i].from[:], to[:]) <= 0 {
			return t.words[t.ranges[i].word]
		}
	}
	return ""
}

// Few are the networks of as many entries as fit into the kernel's lists, those
// with the fewest first.
func (n *GeoNetworks) Few() []netip.Prefix {
	var lists [][]netip.Prefix
	for _, t := range n.tables {
		lists = append(lists, t.prefixes...)
	}
	slices.SortStableFunc(lists, func(a, b []netip.Prefix) int { return len(a) - len(b) })
	var out []netip.Prefix
	for _, l := range lists {
		if len(out)+len(l) > maxGeoKernel {
			break
		}
		out = append(out, l...)
	}
	return out
}

// readTable looks through the database at path for the networks of words. It is
// mapped, not read into memory: if somebody cuts it short meanwhile, that shows as a
// fault, which is made an error here, as is whatever else a damaged file brings about.
func readTable(ctx context.Context, path string, words []string) (t *geoTable, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			t, err = nil, fmt.Errorf("it is damaged, or changed while it was read: %v", r)
		}
	}()
	db, err := maxminddb.Open(path, maxminddb.DisableStringCache())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	t = &geoTable{path: path, words: words, prefixes: make([][]netip.Prefix, len(words))}
	records := make(map[uintptr]int) // the word of each record that has been looked at, -1: none
	seen := 0
	for r := range db.Networks() {
		if err := r.Err(); err != nil {
			return nil, err
		}
		if seen++; seen&0xfff == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if seen > maxGeoNetworks {
			return nil, errors.New("it has too many networks for a true one")
		}
		word, known := records[r.Offset()]
		if !known {
			if word = t.word(&r); len(records) < maxGeoRecords {
				records[r.Offset()] = word
			}
		}
		if word >= 0 {
			t.add(r.Prefix(), word)
		}
	}
	slices.SortFunc(t.ranges, func(a, b geoRange) int { return bytes.Compare(a.from[:], b.from[:]) })
	t.ranges = slices.Clip(t.ranges)
	for i, l := range t.prefixes {
		if len(l) > maxGeoKernel {
			t.prefixes[i] = nil
		}
	}
	return t, nil
}

// word is the index of the word that a record is about, -1 for none. Fields are
// those of MaxMind and DB-IP, then those of IPinfo; one that is missing or of
// another kind is no field.
func (t *geoTable) word(r *maxminddb.Result) int {
	at := func(word string) int {
		if i, ok := slices.BinarySearch(t.words, word); ok {
			return i
		}
		return -1
	}
	for _, path := range [][]any{{"country", "iso_code"}, {"country_code"}, {"country"}} {
		var code string
		if r.DecodePath(&code, path...) == nil && len(code) == 2 {
			t.countries = true
			if i := at("country:" + strings.ToUpper(code)); i >= 0 {
				return i
			}
			break
		}
	}
	var number uint32
	var asn string
	switch {
	case r.DecodePath(&number, "autonomous_system_number") == nil && number != 0:
	case r.DecodePath(&asn, "asn") == nil:
		n, err := strconv.ParseUint(strings.TrimPrefix(asn, "AS"), 10, 32)
		if err != nil {
			return -1
		}
		number = uint32(n)
	default:
		return -1
	}
	t.systems = true
	return at(fmt.Sprintf("AS%d", number))
}

// add adds a network, to the one before where they touch.
func (t *geoTable) add(p netip.Prefix, word int) {
	from, to := bounds(p)
	if n := len(t.ranges); n > 0 && t.ranges[n-1].word == uint32(word) && next(t.ranges[n-1].to) == from {
		t.ranges[n-1].to = to
	} else if n == maxGeoRanges {
		t.full = true
		return
	} else {
		t.ranges = append(t.ranges, geoRange{from, to, uint32(word)})
	}
	if l := t.prefixes[word]; len(l) <= maxGeoKernel {
		t.prefixes[word] = append(l, p)
	}
}

// bounds are the first and the last address of p in IPv6 form.
func bounds(p netip.Prefix) (from, to [16]byte) {
	p = p.Masked()
	from = p.Addr().As16()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	to = from
	for i := bits; i < 128; i++ {
		to[i/8] |= 0x80 >> (i % 8)
	}
	return from, to
}

// next is the address behind a; behind the last of all, the first.
func next(a [16]byte) [16]byte {
	for i := 15; i >= 0; i-- {
		if a[i]++; a[i] != 0 {
			break
		}
	}
	return a
}
