package faults_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
	"portsentry/internal/view"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

func TestMain(m *testing.M) {
	// They wait for daemons more than they work.
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		flag.Set("test.parallel", "4")
	}
	os.Exit(lab.Main(m))
}

// soon is how long anything may take that should be there at once, on a machine that is
// busy with other tests.
const soon = 20 * time.Second

// trap is a trap port of every daemon here.
const trap = 11

// stage is a Lab with a sender that forges whom it likes.
type stage struct {
	*lab.Lab
	t    *testing.T
	send *pktgen.Sender
	dir  string // of the daemon's, which may be started again
}

func newStage(t *testing.T) *stage {
	t.Helper()
	t.Parallel()
	s := &stage{Lab: lab.New(t), t: t, dir: t.TempDir()}
	check(t, s.Scanner.StaticNeighbours())
	send, err := s.Scanner.Sender()
	check(t, err)
	s.send = send
	t.Cleanup(func() { send.Close() })
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
	check(s.t, s.Host.NS.Do(func() (err error) { path, err = bpf.Folder(); return err }))
	return path
}

// source is the nth of those who scan: nobody has these addresses.
func source(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, byte(100 + n/250), byte(1 + n%250)})
}

func (s *stage) packet(src netip.Addr) pktgen.Packet {
	return pktgen.Packet{
		Src: src, Dst: s.Host.Addr4(), Proto: pktgen.ProtoTCP,
		SrcPort: 40000, DstPort: trap, Flags: pktgen.SYN, Seq: 7, Window: 1024,
	}
}

// probe has each of them touch a trap.
func (s *stage) probe(sources ...netip.Addr) {
	s.t.Helper()
	for _, src := range sources {
		check(s.t, s.send.SendPacket(s.packet(src)))
	}
}

// sources are those from the nth on, up to and without the mth.
func sources(n, m int) (all []netip.Addr) {
	for ; n < m; n++ {
		all = append(all, source(n))
	}
	return all
}

type daemon struct {
	*harness.Daemon
	t *testing.T
}

// start runs a daemon that bans, but for more.
func (s *stage) start(more map[string]string, args ...string) *daemon {
	s.t.Helper()
	o := harness.Options{Binary: lab.Binary(s.t), NS: s.Host.NS, Dir: s.dir, Config: config(more), Args: args}
	return &daemon{harness.MustStart(s.t, o), s.t}
}

// config is what the daemons here start from, but for more.
func config(more map[string]string) map[string]string {
	c := map[string]string{
		"TCP_PORTS": "1,11,2222", "UDP_PORTS": "7", "BLOCK_METHOD": "auto", "BLOCK_TCP": "1", "IGNORE_FILE": "",
		"BAN_TIME_UNVERIFIED": "1h",
	}
	maps.Copy(c, more)
	return c
}

// status asks for it, and expects an answer.
func (d *daemon) status() harness.Status {
	d.t.Helper()
	st, err := d.Status(d.t.Context())
	check(d.t, err)
	return st
}

func (d *daemon) command(args ...string) string {
	d.t.Helper()
	out, err := d.Command(d.t.Context(), args...)
	check(d.t, err)
	return string(out)
}

// healthy asks what `portsentry health` says, by its exit code.
func (d *daemon) healthy() bool {
	_, err := d.Command(d.t.Context(), "health")
	return err == nil
}

// banned are those in force, by prefix.
func (d *daemon) banned() map[netip.Prefix]view.Ban {
	d.t.Helper()
	var list view.BanList
	check(d.t, json.Unmarshal([]byte(d.command("bans", "--json")), &list))
	all := make(map[netip.Prefix]view.Ban)
	for _, b := range list.Bans {
		all[b.Prefix] = b
	}
	return all
}

// waitBans waits until all are banned.
func (d *daemon) waitBans(who ...netip.Addr) {
	d.t.Helper()
	lab.Wait(d.t, soon, fmt.Sprintf("bans of %d from %v on", len(who), who[0]), func() bool {
		all := d.banned()
		return !slices.ContainsFunc(who, func(a netip.Addr) bool {
			_, is := all[netip.PrefixFrom(a, a.BitLen())]
			return !is
		})
	})
}

// problem waits until status shows a problem with all the parts.
func (d *daemon) problem(parts ...string) (said string) {
	d.t.Helper()
	var problems []string
	defer func() {
		if d.t.Failed() {
			d.t.Logf("problems: %q", problems)
		}
	}()
	lab.Wait(d.t, soon, "a problem with "+strings.Join(parts, " and "), func() bool {
		problems = d.status().Problems
		i := slices.IndexFunc(problems, func(p string) bool {
			return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(p, part) })
		})
		if i >= 0 {
			said = problems[i]
		}
		return i >= 0
	})
	return said
}

// noProblem waits until there is none.
func (d *daemon) noProblem() {
	d.t.Helper()
	var problems []string
	defer func() {
		if d.t.Failed() {
			d.t.Logf("problems: %q", problems)
		}
	}()
	lab.Wait(d.t, soon, "no problem", func() bool {
		problems = d.status().Problems
		return len(problems) == 0
	})
}

// counter is what a counter of status is now.
func (d *daemon) counter(name string) uint64 {
	d.t.Helper()
	st := d.status()
	v, ok := st.Counter(name)
	if !ok {
		d.t.Fatalf("status has no counter %s", name)
	}
	return v
}

// waitCounter waits until it is n at least.
func (d *daemon) waitCounter(name string, n uint64) {
	d.t.Helper()
	lab.Wait(d.t, soon, fmt.Sprintf("%s of %d", name, n), func() bool { return d.counter(name) >= n })
}

// from are the lines about the scans of a.
func (d *daemon) from(a netip.Addr) (lines []string) {
	d.t.Helper()
	all, err := d.Out.Lines()
	check(d.t, err)
	for _, l := range all {
		if strings.HasPrefix(l, harness.ScanPrefix+a.String()+"]") {
			lines = append(lines, l)
		}
	}
	return lines
}
