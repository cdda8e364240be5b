package xdp_test

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"portsentry/internal/pktgen"
	"portsentry/internal/view"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

type daemon struct {
	*harness.Daemon
	s *stage
}

// reload puts another configuration in force.
func (d *daemon) reload(more map[string]string) {
	t := d.s.t
	t.Helper()
	const done = "is in force"
	before := len(d.lines(func(l string) bool { return strings.Contains(l, done) }))
	check(t, harness.WriteConfig(filepath.Join(d.s.dir, "portsentry.conf"), d.s.config(more)))
	check(t, d.Signal(syscall.SIGHUP))
	lab.Wait(t, soon, "the configuration in force", func() bool {
		return len(d.lines(func(l string) bool { return strings.Contains(l, done) })) > before
	})
}

func (d *daemon) status() harness.Status {
	d.s.t.Helper()
	st, err := d.Status(d.s.t.Context())
	check(d.s.t, err)
	return st
}

// how is how an interface is watched.
func (d *daemon) how(name string) view.Watched {
	d.s.t.Helper()
	watching := d.status().Watching
	i := slices.IndexFunc(watching, func(w view.Watched) bool { return w.Interface == name })
	if i < 0 {
		return view.Watched{}
	}
	return watching[i]
}

// waitHow waits until an interface is watched in a way, "" for not at all.
func (d *daemon) waitHow(name, how string) {
	d.s.t.Helper()
	var now view.Watched
	defer func() {
		if now.How != how {
			d.s.t.Logf("it is watched %+v; problems %q", now, d.status().Problems)
		}
	}()
	lab.Wait(d.s.t, soon, name+" watched by "+how, func() bool { now = d.how(name); return now.How == how })
}

// problem waits until status shows a problem with all the parts.
func (d *daemon) problem(parts ...string) (found string) {
	d.s.t.Helper()
	var all []string
	defer func() {
		if found == "" {
			d.s.t.Logf("problems: %q", all)
		}
	}()
	lab.Wait(d.s.t, soon, "a problem with "+strings.Join(parts, " and "), func() bool {
		all = d.status().Problems
		for _, p := range all {
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(p, part) }) {
				found = p
			}
		}
		return found != ""
	})
	return found
}

// healthy reports problems that there should not be.
func (d *daemon) healthy(when string) {
	d.s.t.Helper()
	if p := d.status().Problems; len(p) > 0 {
		d.s.t.Errorf("%s: problems %q", when, p)
	}
}

func (d *daemon) bans() []view.Ban {
	d.s.t.Helper()
	out, err := d.Command(d.s.t.Context(), "bans", "--json")
	check(d.s.t, err)
	var list view.BanList
	check(d.s.t, json.Unmarshal(out, &list))
	return list.Bans
}

// ban is the ban that covers a, if there is one.
func (d *daemon) ban(a netip.Addr) (view.Ban, bool) {
	d.s.t.Helper()
	bans := d.bans()
	i := slices.IndexFunc(bans, func(b view.Ban) bool { return b.Prefix.Contains(a) })
	if i < 0 {
		return view.Ban{}, false
	}
	return bans[i], true
}

func (d *daemon) waitBan(a netip.Addr) (b view.Ban) {
	d.s.t.Helper()
	lab.Wait(d.s.t, soon, "ban of "+a.String(), func() (ok bool) {
		b, ok = d.ban(a)
		return ok
	})
	return b
}

// dropped is how many packets a ban has dropped, in words.
func dropped(b view.Ban) string {
	if b.Dropped == nil {
		return "nobody knows how many"
	}
	return strconv.FormatUint(*b.Dropped, 10)
}

func (d *daemon) unban(a netip.Addr) {
	d.s.t.Helper()
	_, err := d.Command(d.s.t.Context(), "unban", a.String())
	check(d.s.t, err)
}

func (d *daemon) lines(want func(string) bool) []string {
	d.s.t.Helper()
	all, err := d.Out.Lines()
	check(d.s.t, err)
	return slices.DeleteFunc(all, func(l string) bool { return !want(l) })
}

// from are the scan lines about a.
func (d *daemon) from(a netip.Addr) []string {
	d.s.t.Helper()
	return d.lines(func(l string) bool { return strings.HasPrefix(l, harness.ScanPrefix+a.String()+"]") })
}

// scans are all scan lines but those of marks.
func (d *daemon) scans() []string {
	d.s.t.Helper()
	return d.lines(func(l string) bool {
		return strings.HasPrefix(l, harness.ScanPrefix) && !strings.HasPrefix(l, harness.ScanPrefix+"192.0.2.")
	})
}

// counters reads counters of one status.
func (d *daemon) counters(names ...string) map[string]uint64 {
	d.s.t.Helper()
	st, out := d.status(), make(map[string]uint64)
	for _, name := range names {
		v, ok := st.Counter(name)
		if !ok {
			d.s.t.Fatalf("status has no counter %s", name)
		}
		out[name] = v
	}
	return out
}

func (d *daemon) counter(name string) uint64 {
	d.s.t.Helper()
	return d.counters(name)[name]
}

// marks are sources that are ignored, whose lines say that everything sent before
// them was seen. There are several because workers share sources out.
const marks = 16

// seen waits until the daemon has dealt with everything that was sent so far.
func (s *stage) seen(d *daemon) {
	s.t.Helper()
	count := func() int {
		return len(d.lines(func(l string) bool { return strings.HasPrefix(l, harness.ScanPrefix+"192.0.2.2") }))
	}
	want := count() + marks
	for i := range marks {
		s.forge(s.tcp(nth(ignored, 200+i), 40000, trap, pktgen.SYN))
	}
	lab.Wait(s.t, soon, "the lines of the marks", func() bool { return count() >= want })
}
