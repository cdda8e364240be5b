package xdp_test

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
	"portsentry/internal/view"
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

// nth is an address of a prefix.
func nth(p netip.Prefix, n int) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	b[len(b)-1], b[len(b)-2] = byte(n), b[len(b)-2]+byte(n>>8)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// host is the host's address of the family of a.
func (s *stage) host(a netip.Addr) netip.Addr {
	if a.Is4() {
		return s.Host.Addr4()
	}
	return s.Host.Addr6()
}

// tcp is a TCP packet without data.
func (s *stage) tcp(src netip.Addr, sport, dport, flags uint16) pktgen.Packet {
	return pktgen.Packet{
		Src: src, Dst: s.host(src), Proto: pktgen.ProtoTCP,
		SrcPort: sport, DstPort: dport, Flags: flags, Seq: 1000, Window: 1024,
	}
}

// forge sends packets, one right behind the other.
func (s *stage) forge(packets ...pktgen.Packet) {
	s.t.Helper()
	_, err := s.send.Send(s.t.Context(), s.frames(packets...), 0)
	check(s.t, err)
}

func (s *stage) frames(packets ...pktgen.Packet) (frames [][]byte) {
	s.t.Helper()
	for i := range packets {
		f, err := packets[i].Frames(s.send.Link())
		check(s.t, err)
		frames = append(frames, f...)
	}
	return frames
}

// listening collects what the host sends to the scanner.
func (s *stage) listening() *pktgen.Sniffer {
	s.t.Helper()
	sn, err := pktgen.Sniff(s.t.Context(), s.Scanner.NS, s.Scanner.Name, 1<<20)
	check(s.t, err)
	return sn
}

// answers are all SYN-ACKs to what was sent so far, by who gets them: the answer
// to an honest client comes last.
func (s *stage) answers(sn *pktgen.Sniffer) map[netip.Addr]int {
	s.t.Helper()
	last := nth(ignored, 199)
	s.forge(s.tcp(last, 40000, served[0], pktgen.SYN))
	lab.Wait(s.t, soon, "the answer to an honest client", func() bool {
		return slices.ContainsFunc(sn.Answers(), func(a pktgen.Answer) bool { return a.Dst == last && a.IsSYNACK() })
	})
	all, err := sn.Stop()
	check(s.t, err)
	by := make(map[netip.Addr]int)
	for i := range all {
		if all[i].IsSYNACK() {
			by[all[i].Dst]++
		}
	}
	return by
}

// serve opens echo services in ns until the test ends.
func (s *stage) serve(ns *pktgen.NS, ports ...uint16) {
	s.t.Helper()
	for _, port := range ports {
		var l net.Listener
		check(s.t, ns.Do(func() (err error) {
			l, err = net.Listen("tcp", ":"+strconv.Itoa(int(port)))
			return err
		}))
		s.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					io.Copy(c, c)
				}()
			}
		}()
	}
}

// dial opens a connection from an address of the scanner's to the host.
func (s *stage) dial(src netip.Addr, port uint16, limit time.Duration) (net.Conn, error) {
	return s.dialFrom(s.Scanner.NS, netip.AddrPortFrom(src, 0), netip.AddrPortFrom(s.host(src), port), limit)
}

func (s *stage) dialFrom(ns *pktgen.NS, src, dst netip.AddrPort, limit time.Duration) (c net.Conn, err error) {
	err = ns.Do(func() (err error) {
		dialer := net.Dialer{Timeout: limit, LocalAddr: net.TCPAddrFromAddrPort(src), Control: reuse}
		c, err = dialer.DialContext(s.t.Context(), "tcp", dst.String())
		return err
	})
	if err == nil {
		s.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// reuse lets one local port serve one connection after the other.
func reuse(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	return errors.Join(err, failed)
}

// gets reports whether a served port answers src.
func (s *stage) gets(src netip.Addr) bool {
	s.t.Helper()
	c, err := s.dial(src, 443, refused)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// lets waits until a served port answers src.
func (s *stage) lets(src netip.Addr, within time.Duration) {
	s.t.Helper()
	lab.Wait(s.t, within, src.String()+" is let in", func() bool { return s.gets(src) })
}

// open opens a connection that goes on.
func (s *stage) open(src netip.Addr, port uint16) net.Conn {
	s.t.Helper()
	c, err := s.dial(src, port, soon)
	check(s.t, err)
	return c
}

// echo sends something over c and reads it back.
func echo(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(soon)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("0123456789")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 10))
	return err
}

// nmap scans the host from src.
func (s *stage) nmap(src netip.Addr, args ...string) string {
	s.t.Helper()
	args = append([]string{"--min-rate", "2000", "--max-rtt-timeout", "100ms", "-S", src.String(), "-e", s.Scanner.Name}, args...)
	if src.Is6() {
		args = append(args, "-6")
	}
	return lab.Nmap(s.t, s.Scanner.NS, append(args, s.host(src).String())...)
}

// openPorts are those that nmap lists as open.
func openPorts(report string) string {
	var ports []string
	for line := range strings.Lines(report) {
		if f := strings.Fields(line); len(f) >= 2 && f[1] == "open" && strings.HasSuffix(f[0], "/tcp") {
			ports = append(ports, strings.TrimSuffix(f[0], "/tcp"))
		}
	}
	return strings.Join(ports, " ")
}
