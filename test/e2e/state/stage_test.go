package state_test

import (
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/view"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// soon is how long anything may take that should be there at once, on a machine that is
// busy with other tests.
const soon = 20 * time.Second

// scanner is who scans.
var scanner = lab.ScannerAddrs[0].Addr()

// stage is a Lab with a folder for the state of the daemon.
type stage struct {
	*lab.Lab
	t   *testing.T
	dir string // of the daemon's, which is started again
	db  string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{Lab: lab.New(t), t: t, dir: t.TempDir()}
	s.db = filepath.Join(s.dir, "portsentry.db")
	check(t, s.Scanner.StaticNeighbours())
	folder := s.pins()
	t.Cleanup(func() { os.RemoveAll(folder) }) // of a daemon that was killed
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pins is where a daemon of the host pins what is to outlive it.
func (s *stage) pins() (path string) {
	s.t.Helper()
	check(s.t, s.Host.NS.Do(func() (err error) {
		path, err = bpf.Folder()
		return err
	}))
	return path
}

// emptyKernel forgets what a reboot does.
func (s *stage) emptyKernel() {
	s.t.Helper()
	check(s.t, os.RemoveAll(s.pins()))
	lab.Command(s.t, s.Host.NS, "nft", "flush", "ruleset")
}

type daemon struct {
	*harness.Daemon
	t *testing.T
}

// start runs a daemon that bans and keeps what happens in the database of the stage, but
// for more.
func (s *stage) start(more map[string]string) *daemon {
	s.t.Helper()
	c := map[string]string{
		"TCP_PORTS": "1,11,2222", "BLOCK_METHOD": "auto", "BLOCK_TCP": "1", "BAN_TIME_UNVERIFIED": "30m",
		"BLOCK_EVIDENCE": "any", "DATABASE_FILE": s.db,
	}
	maps.Copy(c, more)
	return &daemon{harness.MustStart(s.t, harness.Options{Binary: lab.Binary(s.t), NS: s.Host.NS, Dir: s.dir, Config: c}), s.t}
}

// knock touches a trap.
func (s *stage) knock() {
	s.t.Helper()
	lab.Command(s.t, s.Scanner.NS, "nmap", "-n", "-Pn", "-sS", "-p1", "--max-retries", "0", lab.HostAddrs[0].Addr().String())
}

// ban is the ban that covers a, if there is one.
func (d *daemon) ban(a netip.Addr) (view.Ban, bool) {
	d.t.Helper()
	out, err := d.Command(d.t.Context(), "bans", "--json")
	check(d.t, err)
	var list view.BanList
	check(d.t, json.Unmarshal(out, &list))
	i := slices.IndexFunc(list.Bans, func(b view.Ban) bool { return b.Prefix.Contains(a) })
	if i < 0 {
		return view.Ban{}, false
	}
	return list.Bans[i], true
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

// problem waits until status shows a problem with all the parts.
func (d *daemon) problem(parts ...string) {
	d.t.Helper()
	var problems []string
	defer func() {
		if d.t.Failed() {
			d.t.Logf("problems: %q", problems)
		}
	}()
	lab.Wait(d.t, soon, "a problem with "+strings.Join(parts, " and "), func() bool {
		st, err := d.Status(d.t.Context())
		check(d.t, err)
		problems = st.Problems
		return slices.ContainsFunc(st.Problems, func(p string) bool {
			return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(p, part) })
		})
	})
}

// counter waits until a counter of status is at least n.
func (d *daemon) counter(name string, n uint64) {
	d.t.Helper()
	lab.Wait(d.t, soon, name, func() bool {
		st, err := d.Status(d.t.Context())
		check(d.t, err)
		v, ok := st.Counter(name)
		if !ok {
			d.t.Fatalf("status has no counter %s", name)
		}
		return v >= n
	})
}
