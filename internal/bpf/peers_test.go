package bpf

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"portsentry/internal/pktgen"
)

// openedPeers are closed at the end of the test.
func openedPeers(t testing.TB, edit func(*ebpf.CollectionSpec)) *Peers {
	t.Helper()
	spec, err := loadPeers()
	if err != nil {
		t.Fatal(err)
	}
	edit(spec)
	p, err := newPeers(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Follow(); err != nil {
		t.Fatal(err)
	}
	return p
}

func asIs(*ebpf.CollectionSpec) {}

// A kernel that lets no program in among the cgroups leaves nothing half open.
func TestPeersWithoutCgroups(t *testing.T) {
	p := openedPeers(t, asIs)
	if err := p.link.Close(); err != nil {
		t.Fatal(err)
	}
	p.link = nil
	none, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	if err := p.attach(none); err == nil || p.link != nil {
		t.Errorf("attached to %s: %v, %v", none.Name(), p.link, err)
	}
}

// listening opens a listener; mark is its SO_MARK.
func listening(t testing.TB, network, at string, mark int) net.Listener {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
		if cerr != nil {
			return cerr
		}
		return err
	}}
	lc.SetMultipathTCP(mark == 0 && network == "tcp") // one kind of listener has it
	l, err := lc.Listen(t.Context(), network, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// connect opens a connection from there and accepts it here.
func connect(t testing.TB, there *space, from string, l net.Listener, to string) {
	t.Helper()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	var client net.Conn
	var err error
	there.do(func() {
		client, err = net.DialTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)),
			net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), port)))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
}

// expectPeers compares what is in the map, now.
func expectPeers(t testing.TB, p *Peers, want ...string) {
	t.Helper()
	got := map[string]bool{}
	var key [16]byte
	var entered uint64
	for it := p.Map().Iterate(); it.Next(&key, &entered); {
		got[netip.AddrFrom16(key).Unmap().String()] = true
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
			t.Fatal(err)
		}
		if age := now.Nano() - int64(entered); age < 0 || age > int64(time.Minute) {
			t.Errorf("%v entered %v ago", netip.AddrFrom16(key), time.Duration(age))
		}
	}
	for _, a := range want {
		if !got[a] {
			t.Errorf("%s is no peer", a)
		}
		delete(got, a)
	}
	if len(got) != 0 {
		t.Errorf("peers as well: %v", got)
	}
}

func TestPeers(t *testing.T) {
	enterSpace(t)
	far := newSpace(t)
	join(t, far)
	before := listening(t, "tcp", ":21", 0)
	connect(t, far, "10.8.0.21", before, "10.7.0.1")
	p := openedPeers(t, asIs)
	expectPeers(t, p) // who came before is user space's to add

	// Accepted means entered: there is nothing to wait for.
	dual := listening(t, "tcp", ":22", 0)
	connect(t, far, "10.8.0.1", dual, "10.7.0.1")
	expectPeers(t, p, "10.8.0.1")
	connect(t, far, "fd07::2", dual, "fd07::1")
	expectPeers(t, p, "10.8.0.1", "fd07::2")
	connect(t, far, "10.8.0.2", listening(t, "tcp4", "10.7.0.1:24", 0), "10.7.0.1")
	connect(t, far, "10.8.0.3", before, "10.7.0.1")
	want := []string{"10.8.0.1", "10.8.0.2", "10.8.0.3", "fd07::2"}
	expectPeers(t, p, want...)

	// Traps of ours, which bear a mark; other marks mean nothing.
	connect(t, far, "10.8.0.4", listening(t, "tcp4", ":25", 0x2073), "10.7.0.1")
	connect(t, far, "10.8.0.5", listening(t, "tcp", ":26", 0x2073), "10.7.0.1")
	expectPeers(t, p, want...)
	connect(t, far, "10.8.0.6", listening(t, "tcp4", ":27", 0x2074), "10.7.0.1")
	want = append(want, "10.8.0.6")
	expectPeers(t, p, want...)

	// Here to there: our own connection makes no peer here, and a connection
	// to somebody of another namespace neither.
	var farListener net.Listener
	far.do(func() { farListener = listening(t, "tcp", ":22", 0) })
	for _, to := range []string{"10.7.0.2", "fd07::2"} {
		c, err := net.Dial("tcp", net.JoinHostPort(to, "22"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := farListener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	// Loopback.
	for _, to := range []string{"127.0.0.1", "::1"} {
		c, err := net.Dial("tcp", net.JoinHostPort(to, "22"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := dual.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	expectPeers(t, p, want...)

	if s := p.Stats(); s != (PeerStats{}) {
		t.Errorf("stats %+v", s)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error("the second time:", err)
	}
}

// What can be sent with a false source makes nobody a peer.
func TestPeersAreNotForged(t *testing.T) {
	enterSpace(t)
	far := newSpace(t)
	join(t, far)
	// Fast Open at every listener and without a cookie.
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_fastopen", []byte("1538"), 0); err != nil {
		t.Fatal(err)
	}
	l := listening(t, "tcp4", "10.7.0.1:22", 0)
	p := openedPeers(t, asIs)
	send := func(src string, flags uint16, payload string) {
		t.Helper()
		var err error
		far.do(func() {
			var fd int
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
				return
			}
			defer unix.Close(fd)
			forged := pktgen.Packet{
				Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr("10.7.0.1"), Proto: pktgen.ProtoTCP,
				SrcPort: 40000, DstPort: 22, Flags: flags, Seq: 1e6, Window: 0xff00, TTL: 64, Payload: []byte(payload),
			}
			var data []byte
			if data, err = forged.AppendTo(nil, nil); err != nil {
				return
			}
			err = unix.Sendto(fd, data, 0, &unix.SockaddrInet4{Addr: [4]byte{10, 7, 0, 1}})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	proc := func(name string) string {
		b, err := os.ReadFile("/proc/thread-self/net/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	resets := func() string { // the last but one of the values of TCP
		_, values, _ := strings.Cut(proc("snmp"), "\nTcp: ")
		_, values, _ = strings.Cut(values, "\nTcp: ")
		values, _, _ = strings.Cut(values, "\n")
		f := strings.Fields(values)
		return f[len(f)-2]
	}

	send("10.7.0.91", 0x02, "")
	eventually(t, "half open", func() bool { return strings.Contains(proc("tcp"), halfOpen("10.7.0.91")) })
	was := resets()
	send("10.7.0.92", 0x10, "")
	eventually(t, "reset", func() bool { return resets() != was })
	send("10.7.0.93", 0x02, "data")
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if a := c.RemoteAddr().String(); a != "10.7.0.93:40000" {
		t.Errorf("not a fast open: %s", a)
	}
	expectPeers(t, p)
	connect(t, far, "10.7.0.2", l, "10.7.0.1")
	expectPeers(t, p, "10.7.0.2")
}

// halfOpen is how net/tcp lists a half-open connection from there (proc_net_tcp).
func halfOpen(from string) string {
	a := netip.MustParseAddr(from).As4()
	return fmt.Sprintf(" %08X:%04X 03 ", binary.NativeEndian.Uint32(a[:]), 40000)
}

// Nobody pushes out those who were there before.
func TestPeersFull(t *testing.T) {
	enterSpace(t)
	far := newSpace(t)
	join(t, far)
	l := listening(t, "tcp", ":22", 0)
	p := openedPeers(t, func(spec *ebpf.CollectionSpec) { spec.Maps[peersMapPeers].MaxEntries = 2 })
	for i := range 5 {
		connect(t, far, fmt.Sprintf("10.8.0.%d", i+1), l, "10.7.0.1")
	}
	connect(t, far, "10.8.0.1", l, "10.7.0.1") // known: needs no room
	expectPeers(t, p, "10.8.0.1", "10.8.0.2")
	if s := p.Stats(); s.Full != 3 || s.Untold != 0 {
		t.Errorf("stats %+v", s)
	}
	if err := p.Add([]netip.Addr{netip.MustParseAddr("10.8.0.2"), netip.MustParseAddr("10.8.0.9")}); err != nil {
		t.Error(err)
	}
	expectPeers(t, p, "10.8.0.1", "10.8.0.2")
	if s := p.Stats(); s.Full != 4 {
		t.Errorf("stats %+v", s)
	}
	if err := p.Remove([]netip.Addr{netip.MustParseAddr("10.8.0.1")}); err != nil {
		t.Error(err)
	}
	connect(t, far, "10.8.0.4", l, "10.7.0.1")
	expectPeers(t, p, "10.8.0.2", "10.8.0.4")
}

// User space that falls behind costs nobody his place.
func TestPeersUntold(t *testing.T) {
	enterSpace(t)
	far := newSpace(t)
	join(t, far)
	l := listening(t, "tcp", ":22", 0)
	p := openedPeers(t, func(spec *ebpf.CollectionSpec) { spec.Maps[peersMapOpened].MaxEntries = uint32(os.Getpagesize()) })
	room := os.Getpagesize() / 48 // a header of 8 bytes each, and multiples of 8
	var want []string
	for i := range room + 3 {
		want = append(want, fmt.Sprintf("10.8.%d.%d", i/250, i%250+1))
		connect(t, far, want[i], l, "10.7.0.1")
	}
	expectPeers(t, p, want...)
	told := 0
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx, func(netip.Addr, netip.AddrPort) { told++ }); err != nil {
		t.Error(err)
	}
	if s := p.Stats(); s.Untold == 0 || told+int(s.Untold) != len(want) || s.Full != 0 {
		t.Errorf("told %d of %d, stats %+v", told, len(want), s)
	}
}

func TestPeersRun(t *testing.T) {
	enterSpace(t)
	far := newSpace(t)
	join(t, far)
	l := listening(t, "tcp", ":22", 0)
	p := openedPeers(t, asIs)
	for range 2 { // it can be run again
		told, locals := make(chan netip.Addr, 16), make(chan netip.AddrPort, 16)
		done := make(chan error)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p.interrupt() // as if by the end of an earlier run
		go func() { done <- p.Run(ctx, func(a netip.Addr, local netip.AddrPort) { told <- a; locals <- local }) }()
		expect := func(want string) {
			t.Helper()
			select {
			case a := <-told:
				if a.String() != want {
					t.Errorf("told of %v, want %s", a, want)
				}
				home := netip.MustParseAddrPort("10.7.0.1:22")
				if a.Is6() {
					home = netip.MustParseAddrPort("[fd07::1]:22")
				}
				if local := <-locals; local != home {
					t.Errorf("%v connected to %v, want %v", a, local, home)
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("not told of %s within 5 s", want)
			}
		}
		a := netip.MustParseAddr("10.8.0.1")
		connect(t, far, a.String(), l, "10.7.0.1")
		expect(a.String())
		connect(t, far, a.String(), l, "10.7.0.1") // known
		connect(t, far, "fd07::2", l, "fd07::1")
		expect("fd07::2")
		if err := p.Remove([]netip.Addr{a, a, netip.MustParseAddr("fd07::2")}); err != nil {
			t.Error(err)
		}
		connect(t, far, a.String(), l, "10.7.0.1")
		expect(a.String())
		if err := p.Remove([]netip.Addr{a}); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil || len(told) != 0 {
			t.Errorf("%v; told of %d more", err, len(told))
		}
	}

	const rounds = 20
	for i := range rounds + 1 {
		connect(t, far, fmt.Sprintf("10.8.1.%d", i+1), l, "10.7.0.1")
	}
	told := 0
	each := func(netip.Addr, netip.AddrPort) { told++ }
	if n := testing.AllocsPerRun(rounds, func() {
		if err := p.next(each); err != nil {
			t.Error(err)
		}
	}); n != 0 || told != rounds+1 {
		t.Errorf("%v allocations for each of %d", n, told)
	}
}

// The map that user space alone fills is the same as the other, and outlives
// its Peers where a program has it.
func TestPeerMap(t *testing.T) {
	enterSpace(t)
	p, err := NewPeers()
	if err != nil {
		t.Fatal(err)
	}
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("2001:db8::1")}
	if err := p.Add(addrs); err != nil {
		t.Error(err)
	}
	if err := p.Add(addrs[:1]); err != nil {
		t.Error("the second time:", err)
	}
	if err := p.Remove([]netip.Addr{addrs[2], netip.MustParseAddr("192.0.2.7")}); err != nil {
		t.Error(err)
	}
	expectPeers(t, p, "192.0.2.1", "fe80::1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx, nil); err != nil || p.Partial() || p.Stats() != (PeerStats{}) {
		t.Error(err, p.Partial(), p.Stats())
	}

	spec, err := loadPeers()
	if err != nil {
		t.Fatal(err)
	}
	other, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{"peers": p.Map()}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	var entered uint64
	if err := other.Maps["peers"].Lookup(addrs[0].As16(), &entered); err != nil {
		t.Error("not shared:", err)
	}
}

// What the daemon keeps is enough, for opening too.
func TestPeersCapabilities(t *testing.T) {
	enterSpace(t)
	keep := uint64(1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_BPF)
	caps := [2]unix.CapUserData{}
	for i := range caps {
		c := uint32(keep >> (32 * i))
		caps[i] = unix.CapUserData{Effective: c, Permitted: c}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&header, &caps[0]); err != nil { // of this thread, which ends with the test
		t.Fatal(err)
	}
	if dir, err := mountedRoot(); err != nil {
		t.Skip("a mount of our own needs more:", err)
	} else {
		dir.Close()
	}
	p := openedPeers(t, asIs)
	a := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	if err := p.Add(a); err != nil {
		t.Error(err)
	}
	expectPeers(t, p, "192.0.2.1")
	if err := p.Remove(a); err != nil {
		t.Error(err)
	}
	expectPeers(t, p)
}

// BenchmarkAccept is a connection to an address of this machine, opened,
// accepted and reset: from one address, who is a peer then, and from many, who
// become peers as long as there is room.
func BenchmarkAccept(b *testing.B) {
	enterSpace(b)
	command(b, "ip route add local 10.8.0.0/16 dev lo")
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(l)
	at := &unix.SockaddrInet4{Port: 22, Addr: [4]byte{10, 8, 255, 1}}
	if err := unix.Bind(l, at); err != nil {
		b.Fatal(err)
	}
	if err := unix.Listen(l, 16); err != nil {
		b.Fatal(err)
	}
	space, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		b.Fatal(err)
	}
	defer space.Close()
	var source uint32
	open := func() error {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(c)
		if err := unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
		if err := unix.Bind(c, &unix.SockaddrInet4{Addr: [4]byte{10, 8, byte(source >> 8), byte(source)}}); err != nil {
			return err
		}
		if err := unix.Connect(c, at); err != nil {
			return err
		}
		s, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			return err
		}
		return unix.Close(s)
	}
	run := func(step uint32) func(*testing.B) {
		return func(b *testing.B) {
			runtime.LockOSThread() // which ends with the benchmark
			if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				source += step
				if err := open(); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("without/one", run(0))
	b.Run("without/many", run(1))
	p := openedPeers(b, asIs)
	b.Run("with/one", run(0))
	b.Run("with/many", run(1))
	b.Logf("%+v", p.Stats())
}
