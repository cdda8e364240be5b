package host

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func writeFile(t testing.TB, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func startWatcher(t testing.TB, root string) *Watcher {
	t.Helper()
	w, err := newWatcher(fileSystem{root})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if n := w.Failures(); n != 0 {
			t.Errorf("%d refreshes failed", n)
		}
	})
	return w
}

func linkNamed(s *Snapshot, name string) (Link, bool) {
	i := slices.IndexFunc(s.Links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, false
	}
	return s.Links[i], true
}

func TestWatcherFollows(t *testing.T) {
	enterSpace(t)
	far := newSpace(t)
	w := startWatcher(t, t.TempDir())
	if first := w.Snapshot(); !first.IsOwn(addr("127.0.0.1")) || !first.IsOwn(addr("127.7.7.7")) || !first.IsOwn(addr("::1")) {
		t.Errorf("loopback is not own: %v", first.Own)
	}
	select {
	case <-w.Changed():
		t.Error("a change is signalled before there was one")
	default:
	}
	expect := func(what string, ok func(s *Snapshot) bool) {
		t.Helper()
		eventually(t, what, func() bool { return ok(w.Snapshot()) })
		eventually(t, "signal after: "+what, func() bool {
			select {
			case <-w.Changed():
				return true
			default:
				return false
			}
		})
	}
	own := func(a string) func(*Snapshot) bool {
		return func(s *Snapshot) bool { return s.IsOwn(addr(a)) }
	}
	gateways := func(want ...string) func(*Snapshot) bool {
		return func(s *Snapshot) bool {
			return slices.EqualFunc(s.Gateways, want, func(a netip.Addr, b string) bool { return a == addr(b) })
		}
	}

	join(t, "eth0", "10.7.0.1/24", far, "eth0", "10.7.0.9/24")
	expect("link and address added", func(s *Snapshot) bool {
		l, ok := linkNamed(s, "eth0")
		return ok && l.Up && l.HasAddress && l.Kind == "veth" && l.HardwareType == 1 && l.Parent == 0 && s.IsOwn(addr("10.7.0.1"))
	})
	eventually(t, "broadcast address", func() bool {
		_, ok := w.Snapshot().Broadcast[addr("10.7.0.255")]
		return ok
	})
	command(t, "ip addr add fd07::1/64 dev eth0")
	expect("IPv6 address added", own("fd07::1"))
	command(t, "ip addr add 10.7.1.1 peer 10.7.1.2/32 dev eth0")
	expect("our end of a point-to-point address", func(s *Snapshot) bool {
		return s.IsOwn(addr("10.7.1.1")) && !s.IsOwn(addr("10.7.1.2"))
	})
	command(t, "ip addr del 10.7.1.1 peer 10.7.1.2/32 dev eth0")
	expect("address removed", func(s *Snapshot) bool { return !s.IsOwn(addr("10.7.1.1")) })

	command(t, "ip route add default via 10.7.0.9")
	expect("default route", gateways("10.7.0.9"))
	if l, _ := linkNamed(w.Snapshot(), "eth0"); !l.DefaultRoute {
		t.Error("eth0 has no default route")
	}
	command(t, "ip route add default via 10.7.0.8 table 100")
	expect("default route of another table", gateways("10.7.0.8", "10.7.0.9"))
	command(t, "ip route replace default nexthop via 10.7.0.7 nexthop via 10.7.0.6")
	expect("multipath", gateways("10.7.0.6", "10.7.0.7", "10.7.0.8"))
	command(t, "ip route add 0.0.0.0/1 via 10.7.0.5", "ip route add 198.51.100.0/24 via 10.7.0.4")
	expect("half of everything", gateways("10.7.0.5", "10.7.0.6", "10.7.0.7", "10.7.0.8"))
	command(t, "ip -6 route add default via fe80::9 dev eth0")
	expect("link-local next hop", gateways("10.7.0.5", "10.7.0.6", "10.7.0.7", "10.7.0.8", "fe80::9"))
	command(t, "ip route del 0.0.0.0/1", "ip route del default table 100", "ip -4 route replace default via inet6 fe80::8 dev eth0")
	expect("IPv4 by way of IPv6", gateways("fe80::8", "fe80::9"))

	if s := w.Snapshot(); s.EphemeralFirst != 32768 || s.EphemeralLast != 60999 {
		t.Errorf("ephemeral ports %d to %d", s.EphemeralFirst, s.EphemeralLast)
	}
	command(t, "ip link del eth0")
	expect("link removed", func(s *Snapshot) bool {
		_, ok := linkNamed(s, "eth0")
		return !ok && !s.IsOwn(addr("10.7.0.1")) && len(s.Gateways) == 0
	})
}

func TestWatcherSeesFilesChange(t *testing.T) {
	enterSpace(t)
	root := t.TempDir()
	writeFile(t, root, "etc/resolv.conf", "nameserver 192.0.2.53\n")
	w, err := newWatcher(fileSystem{root})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if w.filesChanged() {
		t.Error("changed at once")
	}
	writeFile(t, root, "etc/resolv.conf", "nameserver 192.0.2.54 # new\n")
	if !w.filesChanged() {
		t.Error("a new resolv.conf goes unnoticed")
	}
	if err := w.refresh(); err != nil {
		t.Fatal(err)
	}
	if got := w.Snapshot().Resolvers; !slices.Equal(got, []netip.Addr{addr("192.0.2.54")}) {
		t.Errorf("resolvers %v", got)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("20000 30000"), 0); err != nil {
		t.Fatal(err)
	}
	if !w.filesChanged() || w.refresh() != nil {
		t.Error("new port range goes unnoticed")
	}
	if s := w.Snapshot(); s.EphemeralFirst != 20000 || s.EphemeralLast != 30000 {
		t.Errorf("ephemeral ports %d to %d", s.EphemeralFirst, s.EphemeralLast)
	}
}

// Two namespaces of a test joined by a veth are hosts; what looks like a
// container's host end is left alone; ports and loopback always are.
func TestWatchedInKernel(t *testing.T) {
	enterSpace(t)
	far := newSpace(t)
	join(t, "eth0", "10.7.0.1/24", far, "eth0", "10.7.0.9/24")
	join(t, "veth0", "10.7.1.1/24", far, "veth1", "10.7.1.9/24")
	join(t, "veth1a2b3c4", "10.7.2.1/24", far, "eth2", "10.7.2.9/24")
	join(t, "routed", "169.254.1.1/32", far, "eth3", "10.7.3.9/32")
	join(t, "uplink", "10.7.4.1/32", far, "eth4", "10.7.4.9/32")
	join(t, "port", "10.7.5.1/24", far, "eth5", "10.7.5.9/24")
	join(t, "bare", "", far, "eth6", "10.7.6.9/24")
	join(t, "off", "10.7.7.1/24", far, "eth7", "10.7.7.9/24")
	command(t, "ip route add default dev uplink", "ip link set off down", "ip addr flush dev bare",
		"ip link add br0 type bridge", "ip link set port master br0", "ip addr add 10.7.8.1/24 dev br0", "ip link set br0 up")
	w, err := newWatcher(fileSystem{t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()

	watch, left, missing := Watched(w.Snapshot(), nil, false)
	var names []string
	for _, l := range watch {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	if want := []string{"br0", "eth0", "uplink", "veth0"}; !slices.Equal(names, want) {
		t.Errorf("watched %v, want %v", names, want)
	}
	why := map[string]string{}
	for _, l := range left {
		why[l.Link.Name] = l.Why
	}
	for name, want := range map[string]string{
		"lo":          "it is loopback",
		"port":        "it is a port of br0 (bridge)",
		"bare":        "it holds no address of ours",
		"off":         "it is down",
		"routed":      "it is the host end of a container's veth",
		"veth1a2b3c4": "it is the host end of a container's veth",
	} {
		if why[name] != want {
			t.Errorf("%s left because %q, want %q", name, why[name], want)
		}
	}
	if len(missing) != 0 {
		t.Errorf("missing %v", missing)
	}

	watch, left, missing = Watched(w.Snapshot(), []string{"routed", "lo", "wlan7"}, false)
	if len(watch) != 2 || watch[0].Name != "lo" || watch[1].Name != "routed" || !slices.Equal(missing, []string{"wlan7"}) {
		t.Errorf("named: watch %v, missing %v", watch, missing)
	}
	for _, l := range left {
		if l.Why != "it is not named" {
			t.Errorf("%s left because %q", l.Link.Name, l.Why)
		}
	}
}

func TestVLANDevice(t *testing.T) {
	// The bytes of RTM_NEWLINK for eth0.7: this kernel may not have VLANs.
	f := new(rtFacts)
	b := make([]byte, 16)
	native.PutUint32(b[4:], 9)
	nested := func(kind uint16, v []byte) []byte {
		out := append(appendAttribute(nil, kind, 4+len(v)), v...)
		return append(out, make([]byte, align4(len(out))-len(out))...)
	}
	info := append(nested(1, []byte("vlan\x00")), nested(2, nested(1, []byte{7, 0}))...)
	b = append(b, nested(3, []byte("eth0.7\x00"))...)
	b = append(b, nested(5, []byte{2, 0, 0, 0})...)
	b = append(b, nested(18, info)...)
	f.link(16, b)
	s := f.snapshot()
	if i, ok := s.VLANDevice(2, 7); !ok || i != 9 {
		t.Errorf("VLANDevice(2, 7) = %d, %v: %+v", i, ok, s.Links)
	}
	for _, q := range [][2]int{{2, 8}, {3, 7}, {2, 0}} {
		if _, ok := s.VLANDevice(int32(q[0]), uint16(q[1])); ok {
			t.Errorf("VLANDevice(%d, %d) found", q[0], q[1])
		}
	}
}

func TestRuntimeName(t *testing.T) {
	for name, want := range map[string]bool{
		"veth1a2b3c4": true, "veth0a1b2c3d": true, "cali0123456789a": true, "lxc_health": true, "ve-web": true, "eni0123456789a": true,
		"eth0": false, "veth0": false, "veth1": false, "vethhost": false, "veth-host": false, "veth123": false, "enp3s0": false, "ens192": false,
	} {
		if runtimeName(name) != want {
			t.Errorf("runtimeName(%q) = %v", name, !want)
		}
	}
}

// Netlink messages are the kernel's, but a torn one must not bring us down, and
// reading stays within the bytes.
func FuzzNetlinkMessages(f *testing.F) {
	f.Add(newRequest(16, 0, 32))
	f.Add(newRequest(24, 0, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		facts := new(rtFacts)
		concerns(b)
		total := 0
		for rest := b; len(rest) > 0; {
			var m message
			if m, rest = nextMessage(rest); m.body == nil {
				break
			}
			total += len(m.body)
			m.errno()
			facts.link(16, m.body)
			facts.addr(20, m.body)
			facts.route(24, m.body)
			parseSocket(m.body)
		}
		if total > len(b) {
			t.Errorf("%d bytes of bodies in %d bytes", total, len(b))
		}
		s := facts.snapshot()
		for a := range s.Own {
			if !a.IsValid() || a.IsMulticast() {
				t.Errorf("own %v", a)
			}
		}
	})
}

// Whether anything is forwarded: by all links or by one, and not by those to come.
func TestWatcherFollowsForwarding(t *testing.T) {
	enterSpace(t)
	command(t, "ip link add name one type veth peer name two", "ip link set one up")
	w := startWatcher(t, t.TempDir())
	if w.Snapshot().Forwards {
		t.Fatal("a new namespace forwards")
	}
	set := func(key, value string) { writeFile(t, "/proc/sys/net", key, value) }
	for _, key := range []string{"ipv4/ip_forward", "ipv4/conf/one/forwarding", "ipv6/conf/all/forwarding", "ipv6/conf/one/forwarding"} {
		set(key, "1")
		eventually(t, key+"=1", func() bool { return w.Snapshot().Forwards })
		set(key, "0")
		eventually(t, key+"=0", func() bool { return !w.Snapshot().Forwards })
	}
	set("ipv4/conf/default/forwarding", "1")
	command(t, "ip link set one down")
	eventually(t, "the link is down", func() bool { l, _ := linkNamed(w.Snapshot(), "one"); return !l.Up })
	if w.Snapshot().Forwards {
		t.Error("what new links would do counts")
	}
}
