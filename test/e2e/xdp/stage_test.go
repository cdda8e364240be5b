package xdp_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
	"portsentry/test/harness"
	"portsentry/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// Networks behind the scanner. It has every address of the first three, so that
// it can open connections from them; nobody has those of the last.
var (
	clients  = netip.MustParsePrefix("203.0.113.0/24")
	clients6 = netip.MustParsePrefix("2001:db8:a::/64")
	ignored  = netip.MustParsePrefix("192.0.2.0/24") // in the ignore file of every test
	nobody   = netip.MustParsePrefix("198.18.0.0/15")
)

// The gateway of the host is the scanner under other addresses.
var (
	gateway  = netip.MustParseAddr("10.77.0.254")
	gateway6 = netip.MustParseAddr("fd77::fe")
)

// served are the ports with a service.
var served = []uint16{22, 80, 443}

// trap and trap2 are trap ports of TCP; the first is one of UDP, too.
const trap, trap2 = 1, 11

// soon is how long anything may take that should be there at once, on a machine
// that is busy with other tests.
const soon = 15 * time.Second

// refused is how long to wait for an answer that must not come.
const refused = 300 * time.Millisecond

// stage is a Lab whose scanner is also the way to everybody else.
type stage struct {
	*lab.Lab
	t    *testing.T
	send *pktgen.Sender
	dir  string // of the daemon's, which may be started again
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{Lab: lab.New(t), t: t, dir: t.TempDir()}
	for _, args := range [][]string{
		{"ip", "addr", "add", gateway.String() + "/16", "dev", s.Scanner.Name},
		{"ip", "addr", "add", gateway6.String() + "/64", "dev", s.Scanner.Name, "nodad"},
		{"ip", "route", "add", "local", clients.String(), "dev", "lo"},
		{"ip", "-6", "route", "add", "local", clients6.String(), "dev", "lo"},
		{"ip", "route", "add", "local", ignored.String(), "dev", "lo"},
	} {
		lab.Command(t, s.Scanner.NS, args...)
	}
	lab.Command(t, s.Host.NS, "ip", "route", "add", "default", "via", gateway.String())
	lab.Command(t, s.Host.NS, "ip", "-6", "route", "add", "default", "via", gateway6.String())
	for _, key := range []string{"net.ipv4.ip_nonlocal_bind", "net.ipv6.ip_nonlocal_bind"} {
		check(t, s.Scanner.NS.Sysctl(key, "1"))
	}
	check(t, s.Scanner.StaticNeighbours())
	for _, gw := range []netip.Addr{gateway, gateway6} {
		lab.Command(t, s.Host.NS, "ip", "neigh", "replace", gw.String(), "lladdr", s.Scanner.MAC.String(), "dev", s.Host.Name)
	}
	s.send = s.sender(s.Scanner)
	t.Cleanup(func() { os.RemoveAll(s.folder()) }) // of a daemon that was killed
	return s
}

func (s *stage) sender(e *pktgen.End) *pktgen.Sender {
	s.t.Helper()
	send, err := e.Sender()
	check(s.t, err)
	s.t.Cleanup(func() { send.Close() })
	return send
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// folder is where a daemon of the host pins what is to outlive it.
func (s *stage) folder() (path string) {
	s.t.Helper()
	err := s.Host.NS.Do(func() (err error) {
		path, err = bpf.Folder()
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return path
}

// pinned are the names in it.
func (s *stage) pinned() (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(s.folder())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// onLink is the number of the XDP program on the interface of an end, as ip(8)
// says it; "" for none.
func onLink(t *testing.T, e *pktgen.End) string {
	t.Helper()
	var links []struct {
		XDP struct{ Prog struct{ ID int } }
	}
	check(t, json.Unmarshal([]byte(lab.Command(t, e.NS, "ip", "-j", "link", "show", "dev", e.Name)), &links))
	if id := links[0].XDP.Prog.ID; id != 0 {
		return strconv.Itoa(id)
	}
	return ""
}

// config is what most tests start from, but for more.
func (s *stage) config(more map[string]string) map[string]string {
	ignore := filepath.Join(s.dir, "portsentry.ignore")
	check(s.t, os.WriteFile(ignore, []byte(ignored.String()+"\n"), 0o600))
	c := map[string]string{
		"TCP_PORTS": "1,11,2222", "UDP_PORTS": "1,7", "IGNORE_FILE": ignore,
		"CAPTURE": "auto", "BLOCK_METHOD": "auto", "BLOCK_TCP": "1", "BLOCK_UDP": "1",
	}
	maps.Copy(c, more)
	return c
}

// start runs the daemon as config says.
func (s *stage) start(more map[string]string) *daemon {
	s.t.Helper()
	return s.run(lab.Binary(s.t), more)
}

// startIn does so inside a script that runs "$@" where and how it likes.
func (s *stage) startIn(script string, more map[string]string) *daemon {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "portsentry")
	script = "#!/bin/sh\nset -e\nset -- " + lab.Binary(s.t) + " \"$@\"\n" + script + "\n"
	// A child that another test forks meanwhile would hold the file open for
	// writing until it execs, and then ours could not be run.
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte(script), 0o700)
	syscall.ForkLock.RUnlock()
	check(s.t, err)
	return s.run(path, more)
}

func (s *stage) run(binary string, more map[string]string) *daemon {
	s.t.Helper()
	o := harness.Options{Binary: binary, NS: s.Host.NS, Dir: s.dir, Config: s.config(more)}
	return &daemon{harness.MustStart(s.t, o), s}
}
