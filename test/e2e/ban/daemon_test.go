package ban_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/view"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

// soon is how long anything may take that should be there at once, on a machine
// that is busy with other tests.
const soon = 10 * time.Second

type daemon struct {
	*harness.Daemon
	t *testing.T
}

// bans is what `portsentry bans --json` says.
func (d *daemon) bans() []view.Ban {
	d.t.Helper()
	out, err := d.Command(d.t.Context(), "bans", "--json")
	check(d.t, err)
	var list view.BanList
	check(d.t, json.Unmarshal(out, &list))
	return list.Bans
}

// ban is the ban that covers a, if there is one.
func (d *daemon) ban(a netip.Addr) (view.Ban, bool) {
	d.t.Helper()
	bans := d.bans()
	i := slices.IndexFunc(bans, func(b view.Ban) bool { return b.Prefix.Contains(a) })
	if i < 0 {
		return view.Ban{}, false
	}
	return bans[i], true
}

// waitBan waits until a is banned.
func (d *daemon) waitBan(a netip.Addr) (b view.Ban) {
	d.t.Helper()
	lab.Wait(d.t, soon, "ban of "+a.String(), func() (ok bool) {
		b, ok = d.ban(a)
		return ok
	})
	return b
}

// scans are the scan lines so far, without those of marks.
func (d *daemon) scans() []string {
	d.t.Helper()
	return d.lines(func(l string) bool { return strings.HasPrefix(l, harness.ScanPrefix) && !isMark(l) })
}

// from are the scan lines about a.
func (d *daemon) from(a netip.Addr) []string {
	d.t.Helper()
	return d.lines(func(l string) bool { return strings.HasPrefix(l, harness.ScanPrefix+a.String()+"]") })
}

func (d *daemon) lines(want func(string) bool) []string {
	d.t.Helper()
	all, err := d.Out.Lines()
	check(d.t, err)
	return slices.DeleteFunc(all, func(l string) bool { return !want(l) })
}

// waitLine waits for a line of standard output that has all the parts.
func (d *daemon) waitLine(parts ...string) string {
	d.t.Helper()
	return d.wait(d.Out, parts)
}

// waitError waits for a line of standard error that has all the parts.
func (d *daemon) waitError(parts ...string) string {
	d.t.Helper()
	return d.wait(d.Err, parts)
}

func (d *daemon) wait(out harness.Output, parts []string) (line string) {
	d.t.Helper()
	defer func() {
		if line == "" {
			d.t.Logf("it said:\n%s", read(string(out)))
		}
	}()
	lab.Wait(d.t, soon, "a line with "+strings.Join(parts, " and "), func() bool {
		all, err := out.Lines()
		check(d.t, err)
		i := slices.IndexFunc(all, func(l string) bool { return hasAll(l, parts) })
		if i >= 0 {
			line = all[i]
		}
		return i >= 0
	})
	return line
}

func hasAll(line string, parts []string) bool {
	return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) })
}

// counter is one of status.
func (d *daemon) counter(name string) uint64 {
	d.t.Helper()
	st, err := d.Status(d.t.Context())
	check(d.t, err)
	v, ok := st.Counter(name)
	if !ok {
		d.t.Fatalf("status has no counter %s", name)
	}
	return v
}

// problem waits until status shows a problem with all the parts.
func (d *daemon) problem(parts ...string) string {
	d.t.Helper()
	var found string
	lab.Wait(d.t, soon, "a problem with "+strings.Join(parts, " and "), func() bool {
		st, err := d.Status(d.t.Context())
		check(d.t, err)
		i := slices.IndexFunc(st.Problems, func(p string) bool { return hasAll(p, parts) })
		if i >= 0 {
			found = st.Problems[i]
		}
		return i >= 0
	})
	return found
}

// unban lifts a ban and gives what was said and whether it was there.
func (d *daemon) unban(a netip.Addr) (string, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), soon)
	defer cancel()
	out, err := d.Command(ctx, "unban", a.String())
	return string(out), err
}

// element of a set of the firewall.
type element struct {
	addr    netip.Addr
	expires time.Duration
}

// sets are the elements of the sets of our table by the name of the set. No
// table, no sets.
func (s *stage) sets() map[string][]element {
	s.t.Helper()
	if !s.hasTable() {
		return nil
	}
	var answer struct {
		Nftables []struct {
			Set struct {
				Name string
				Elem []json.RawMessage
			}
		}
	}
	out := lab.Command(s.t, s.Host.NS, "nft", "-j", "list", "table", "inet", "portsentry")
	check(s.t, json.Unmarshal([]byte(out), &answer))
	all := make(map[string][]element)
	for _, part := range answer.Nftables {
		set := &part.Set
		if !slices.Contains(banSets, set.Name) && !slices.Contains(limitedSets, set.Name) {
			continue
		}
		for _, raw := range set.Elem {
			var e struct {
				Elem struct {
					Val     json.RawMessage
					Expires int
				}
			}
			check(s.t, json.Unmarshal(raw, &e))
			var addr netip.Addr
			if json.Unmarshal(e.Elem.Val, &addr) != nil {
				var parts struct{ Concat []string }
				check(s.t, json.Unmarshal(e.Elem.Val, &parts))
				addr = netip.MustParseAddr(parts.Concat[0])
			}
			all[set.Name] = append(all[set.Name], element{addr, time.Duration(e.Elem.Expires) * time.Second})
		}
	}
	return all
}

// Sets that can stop a source altogether, and those that cannot.
var (
	banSets     = []string{"full4", "soft4", "part4", "hit4", "hitpart4", "full6", "soft6", "part6", "hit6", "hitpart6", "full6n", "soft6n", "part6n"}
	limitedSets = []string{"lim4", "hitlim4", "lim6", "hitlim6", "lim6n"}
)

// in gives those of the sets that a is in.
func (s *stage) in(a netip.Addr, sets []string) (in []string) {
	s.t.Helper()
	all := s.sets()
	for _, set := range sets {
		if slices.ContainsFunc(all[set], func(e element) bool { return e.addr == a }) {
			in = append(in, set)
		}
	}
	return in
}

// banned gives the sets, limited ones apart, that a is in.
func (s *stage) banned(a netip.Addr) []string {
	s.t.Helper()
	return s.in(a, banSets)
}

func (s *stage) hasTable() bool {
	s.t.Helper()
	return strings.Contains(lab.Command(s.t, s.Host.NS, "nft", "list", "tables"), "inet portsentry")
}
