package listen

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
)

func TestBind(t *testing.T) {
	enterSpace(t)
	there := newPeer(t)
	busy, err := net.Listen("tcp", ":11")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	k := startTraps(t, Config{TCP: ports(11, 15, 79), UDP: ports(7, 40000), Banner: []byte(banner), bindAll: true})
	if k.Method() != "bind" {
		t.Error(k.Method())
	}
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	want := "11/tcp: address already in use (" + strings.TrimSpace(string(name)) + ")"
	if p := k.Problems(); len(p) != 2 || p[1] != want {
		t.Errorf("problems: %q, want %q", p, want)
	}
	tcp, udp, err := k.Ports()
	if err != nil || tcp.String() != "15,79" || udp.String() != "7,40000" {
		t.Errorf("watched: %v tcp, %v udp, %v", tcp, udp, err)
	}
	there.do(func() {
		for _, c := range []struct {
			network string
			to      netip.AddrPort
		}{
			{"tcp4", end(here4, 15)}, {"tcp6", end(here6, 79)},
			{"udp4", end(here4, 7)}, {"udp6", end(here6, 40000)},
		} {
			if got := get(t, c.network, c.to); got != banner {
				t.Errorf("%s %v: %q", c.network, c.to, got)
			}
			if n := len(k.seen(c.to)); n != 1 {
				t.Errorf("%s %v: %d contacts", c.network, c.to, n)
			}
		}
	})
}

func TestSetPorts(t *testing.T) {
	for _, bindAll := range []bool{false, true} {
		t.Run(map[bool]string{false: "sk_lookup", true: "bind"}[bindAll], func(t *testing.T) {
			enterSpace(t)
			k := startTraps(t, Config{TCP: ports(15, 79), UDP: ports(7, 9, 40000), Banner: []byte(banner), bindAll: bindAll})
			if !bindAll {
				k.steered(t)
			}
			going := dial(t, "tcp4", end("127.0.0.1", 79)) // does not hang up for now
			if going == nil {
				t.FailNow()
			}
			eventually(t, "contact", func() bool { return k.count() == 1 })
			if err := k.SetPorts(ports(15, 80), ports(9, 10, 40001), []byte("other")); err != nil {
				t.Fatal(err)
			}
			tcp, udp, err := k.Ports()
			if err != nil || tcp.String() != "15,80" || udp.String() != "9-10,40001" {
				t.Errorf("watched: %v tcp, %v udp, %v", tcp, udp, err)
			}
			b := make([]byte, 100)
			if n, err := going.Read(b); err != nil || string(b[:n]) != banner {
				t.Errorf("what went on: %q, %v", b[:n], err)
			}
			for _, port := range []uint16{15, 80} {
				if got := get(t, "tcp4", end("127.0.0.1", port)); got != "other" {
					t.Errorf("%d/tcp: %q", port, got)
				}
			}
			for _, port := range []uint16{9, 10, 40001} {
				if got := get(t, "udp6", end("::1", port)); got != "other" {
					t.Errorf("%d/udp: %q", port, got)
				}
			}
			if _, err := net.Dial("tcp4", "127.0.0.1:79"); err == nil {
				t.Error("79/tcp accepts still")
			}
			before := k.count()
			if err := k.SetPorts(nil, nil, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := net.Dial("tcp4", "127.0.0.1:80"); err == nil || k.count() != before {
				t.Errorf("80/tcp accepts still, %d contacts", k.count()-before)
			}
		})
	}
}

// The sockets that are steered to are no traps by themselves.
func TestOwnSocketsAreNoTraps(t *testing.T) {
	enterSpace(t)
	k := startTraps(t, Config{TCP: ports(15), UDP: ports(7)})
	k.steered(t)
	for _, s := range k.steering.to {
		network := "tcp"
		if s.proto == unix.IPPROTO_UDP {
			network = "udp"
		}
		if c, err := net.Dial(network, s.local.String()); err == nil { // or reset at once
			c.Write([]byte("?"))
			c.Close()
		}
	}
	if c := dial(t, "tcp", end("127.0.0.1", 15)); c != nil {
		c.Close()
	}
	eventually(t, "the contact that is one", func() bool { return k.count() > 0 })
	if k.count() != 1 {
		t.Errorf("contacts: %+v", k.contacts)
	}
}

func TestTooManyPortsToBind(t *testing.T) {
	enterSpace(t)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: 1000, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	k := startTraps(t, Config{bindAll: true})
	for _, c := range []struct {
		tcp, udp         config.PortSet
		onTCP, onUDP     string
		tellTCP, tellUDP string
	}{
		{all(), all(), "1-125", "1-125", "126-65535/tcp: not bound, only 1-125: ", "126-65535/udp: not bound, only 1-125: "},
		{all(), ports(7), "1-249", "7", "250-65535/tcp: not bound, only 1-249: ", ""},
		{ports(7), all(), "7", "1-249", "", "250-65535/udp: not bound, only 1-249: "},
	} {
		if err := k.SetPorts(c.tcp, c.udp, nil); err != nil {
			t.Fatal(err)
		}
		tcp, udp, err := k.Ports()
		if err != nil || tcp.String() != c.onTCP || udp.String() != c.onUDP {
			t.Errorf("watched: %v tcp, %v udp, %v", tcp, udp, err)
		}
		told := k.Problems()[1:]
		for _, want := range []string{c.tellTCP, c.tellUDP} {
			if want == "" {
				continue
			}
			if len(told) == 0 || !strings.HasPrefix(told[0], want) || !strings.Contains(told[0], "LimitNOFILE") {
				t.Fatalf("problems: %q, want %q", told, want)
			}
			told = told[1:]
		}
		if len(told) != 0 {
			t.Errorf("problems: %q", told)
		}
		if free := int(few.Cur) - descriptorsOpen(t); free < keptFree {
			t.Errorf("%d descriptors left for the others", free)
		}
	}
}

// Where the others have taken what was to be ours, it is said what is not bound.
func TestNoDescriptorsInSpiteOfRoom(t *testing.T) {
	enterSpace(t)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: 400, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	k := startTraps(t, Config{bindAll: true})
	for descriptorsOpen(t) < int(few.Cur)-41 {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	if err := k.SetPorts(all(), nil, nil); err != nil {
		t.Fatal(err)
	}
	tcp, _, err := k.Ports()
	if err != nil || len(tcp) != 1 || tcp.Count() < 10 || tcp.Count() > 25 {
		t.Fatalf("watched: %v, %v", tcp, err)
	}
	p := k.Problems()
	rest := all().Less(tcp)
	if len(p) != 3 || !strings.Contains(p[1], "too many open files") || !strings.HasPrefix(p[2], rest.String()+"/tcp: not bound, only "+tcp.String()+": ") {
		t.Errorf("problems: %q", p)
	}
}

func TestShare(t *testing.T) {
	for _, c := range [][5]int{ // ports of TCP and UDP, room; shares
		{10, 10, 100, 10, 10}, {65535, 65535, 101, 51, 50}, {65535, 3, 100, 97, 3}, {3, 65535, 100, 3, 97},
		{0, 65535, 100, 0, 100}, {65535, 0, 100, 100, 0}, {5, 5, 0, 0, 0}, {5, 5, 1, 1, 0},
	} {
		if tcp, udp := share(c[0], c[1], c[2]); tcp != c[3] || udp != c[4] {
			t.Errorf("share(%d, %d, %d) = %d, %d", c[0], c[1], c[2], tcp, udp)
		}
	}
	s := config.PortSet{{First: 1, Last: 3}, {First: 65530, Last: 65535}}
	for n, want := range []string{0: "", 3: "1-3", 4: "1-3,65530", 9: "1-3,65530-65535"} {
		low, high := split(s, n)
		if n > 0 && want == "" {
			continue
		}
		if low.String() != want || s.Less(low).String() != high.String() {
			t.Errorf("the %d lowest: %v, others %v", n, low, high)
		}
	}
	var many config.PortSet
	for p := range uint16(100) {
		many = append(many, config.PortRange{First: 2*p + 1, Last: 2*p + 1})
	}
	if got := brief(many); got != "1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 and 84 more" {
		t.Error(got)
	}
}

func TestNothingCanBeOpened(t *testing.T) {
	enterSpace(t)
	busy, err := net.Listen("tcp", ":11")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	before := descriptorsOpen(t)
	if _, err := Open(Config{TCP: ports(11), bindAll: true}); err == nil || !strings.Contains(err.Error(), "11/tcp: address already in use") {
		t.Error(err)
	}
	if now := descriptorsOpen(t); now != before {
		t.Errorf("%d descriptors are left open", now-before)
	}
}

func descriptorsOpen(t *testing.T) int {
	t.Helper()
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

// Without CAP_BPF the ports are bound, and it is said why.
func TestWithoutCapability(t *testing.T) {
	enterSpace(t)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3} // of this thread
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		t.Fatal(err)
	}
	for _, c := range []uint32{unix.CAP_BPF, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN} {
		caps[c/32].Effective &^= 1 << (c % 32)
	}
	if err := unix.Capset(&header, &caps[0]); err != nil {
		t.Fatal(err)
	}
	k := startTraps(t, Config{TCP: ports(15)})
	if p := k.Problems(); k.Method() != "bind" || len(p) != 1 ||
		p[0] != "every port is bound, as the kernel does not steer: needs CAP_BPF and CAP_NET_ADMIN" {
		t.Errorf("%s: %q", k.Method(), p)
	}
	if c := dial(t, "tcp4", end("127.0.0.1", 15)); c != nil {
		eventually(t, "contact", func() bool { return k.count() == 1 })
	}
	runtime.KeepAlive(caps)
}

func TestWithoutIPv6(t *testing.T) {
	enterSpace(t)
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	for _, bindAll := range []bool{false, true} {
		k := startTraps(t, Config{TCP: ports(15), UDP: ports(7), Banner: []byte(banner), bindAll: bindAll})
		if !bindAll {
			k.steered(t)
		}
		if len(k.Problems()) > 0 != bindAll {
			t.Error(k.Problems())
		}
		if got := get(t, "tcp4", end("127.0.0.1", 15)); got != banner {
			t.Errorf("%q", got)
		}
		if got := get(t, "udp4", end("127.0.0.1", 7)); got != banner {
			t.Errorf("%q", got)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRanges(t *testing.T) {
	for _, s := range []config.PortSet{nil, all(), {{First: 1, Last: 1}, {First: 3, Last: 9}, {First: 65535, Last: 65535}}} {
		if got := ranges(s.Has); !slices.Equal(got, s) {
			t.Errorf("%v, want %v", got, s)
		}
	}
}

func TestProblemsAreBounded(t *testing.T) {
	k := &Traps{problems: make([]string, 1000)}
	if p := k.Problems(); len(p) != maxProblems+1 || p[maxProblems] != "and 968 more like these" {
		t.Errorf("%d lines, the last %q", len(p), p[len(p)-1])
	}
}

// Ready within 100 ms whatever the number of ports.
func BenchmarkOpenAll(b *testing.B) {
	enterSpace(b)
	for b.Loop() {
		k, err := Open(Config{TCP: all(), UDP: all()})
		if err != nil {
			b.Fatal(err)
		}
		if err := k.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// What a look costs, twice a second while a port is taken.
func BenchmarkLook(b *testing.B) {
	enterSpace(b)
	k, err := Open(Config{TCP: all(), UDP: all()})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	for b.Loop() {
		if err := k.steering.look(time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
