package afpacket

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"portsentry/internal/config"
)

// coreVM runs the part of the filter that looks at the data, on packets of the
// given EtherType. The part that asks the kernel is tested in kernel_test.go.
func coreVM(t testing.TB, etherType uint32, tcp, udp config.PortSet, scans bool) *bpf.VM {
	t.Helper()
	var p program
	p.emit(bpf.LoadConstant{Val: etherType})
	p.when(bpf.JumpEqual, unix.ETH_P_IP, labelIPv4)
	p.when(bpf.JumpEqual, unix.ETH_P_IPV6, labelIPv6)
	p.jump(labelTagged)
	p.core(tcp, udp, scans)
	vm, err := bpf.NewVM(p.resolve())
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func run(t testing.TB, vm *bpf.VM, packet []byte) int {
	t.Helper()
	n, err := vm.Run(packet)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var (
	someTCP = config.PortSet{{First: 1, Last: 1}, {First: 11, Last: 20}, {First: 65535, Last: 65535}}
	someUDP = config.PortSet{{First: 7, Last: 9}}
)

const (
	tcpProto = unix.IPPROTO_TCP
	udpProto = unix.IPPROTO_UDP
	more     = 0x2000 // more fragments
)

// cases are packets for a filter on someTCP and someUDP.
var cases = []struct {
	name      string
	etherType uint16
	packet    []byte
	want      int
}{
	{"tcp syn", unix.ETH_P_IP, syn4(11), snapHeaders},
	{"tcp syn, end of range", unix.ETH_P_IP, syn4(20), snapHeaders},
	{"tcp syn, single port", unix.ETH_P_IP, syn4(65535), snapHeaders},
	{"tcp syn, below", unix.ETH_P_IP, syn4(10), 0},
	{"tcp syn, above", unix.ETH_P_IP, syn4(21), 0},
	{"tcp syn to port 0", unix.ETH_P_IP, syn4(0), 0},
	{"tcp syn to a udp port", unix.ETH_P_IP, syn4(7), 0},
	{"tcp null", unix.ETH_P_IP, ipv4(src4, tcpProto, 0, nil, tcp(11, 0)), snapHeaders},
	{"tcp fin", unix.ETH_P_IP, ipv4(src4, tcpProto, 0, nil, tcp(11, fin)), snapHeaders},
	{"tcp xmas", unix.ETH_P_IP, ipv4(src4, tcpProto, 0, nil, tcp(11, fin|psh|urg)), snapHeaders},
	{"tcp ack", unix.ETH_P_IP, ipv4(src4, tcpProto, 0, nil, tcp(11, ack)), snapHeaders},
	{"tcp maimon", unix.ETH_P_IP, ipv4(src4, tcpProto, 0, nil, tcp(11, fin|ack)), snapHeaders},
	{"tcp syn+fin", unix.ETH_P_IP, ipv4(src4, tcpProto, 0, nil, tcp(11, syn|fin)), snapHeaders},
	{"tcp syn+ack", unix.ETH_P_IP, ipv4(src4, tcpProto, 0, nil, tcp(11, syn|ack)), 0},
	{"tcp rst", unix.ETH_P_IP, ipv4(src4, tcpProto, 0, nil, tcp(11, rst)), 0},
	{"tcp rst+ack", unix.ETH_P_IP, ipv4(src4, tcpProto, 0, nil, tcp(11, rst|ack)), 0},
	{"udp", unix.ETH_P_IP, ipv4(src4, udpProto, 0, nil, udp(8, 4)), snapHeaders},
	{"udp, not listed", unix.ETH_P_IP, ipv4(src4, udpProto, 0, nil, udp(11, 4)), 0},
	{"icmp", unix.ETH_P_IP, ipv4(src4, unix.IPPROTO_ICMP, 0, nil, tcp(11, syn)), 0},
	{"ip options", unix.ETH_P_IP, ipv4(src4, tcpProto, 0, make([]byte, 4), tcp(11, syn)), snapHeaders},
	{"40 bytes of ip options", unix.ETH_P_IP, ipv4(src4, tcpProto, 0, make([]byte, 40), tcp(11, syn)), snapHeaders},
	{"40 bytes of ip options, not listed", unix.ETH_P_IP, ipv4(src4, tcpProto, 0, make([]byte, 40), tcp(12345, syn)), 0},
	{"header length 4", unix.ETH_P_IP, append([]byte{0x44}, syn4(11)[1:]...), 0},
	{"version 6 as IPv4", unix.ETH_P_IP, append([]byte{0x65}, syn4(11)[1:]...), 0},
	{"first fragment of 8 bytes", unix.ETH_P_IP, ipv4(src4, tcpProto, more, nil, tcp(11, syn)[:8]), snapHeaders},
	{"first fragment, not listed", unix.ETH_P_IP, ipv4(src4, tcpProto, more, nil, tcp(21, syn)[:8]), 0},
	{"first fragment, udp", unix.ETH_P_IP, ipv4(src4, udpProto, more, nil, udp(8, 0)), snapHeaders},
	{"second fragment", unix.ETH_P_IP, ipv4(src4, tcpProto, more|1, nil, tcp(11, syn)[8:16]), snapWhole},
	{"last fragment, offset 56", unix.ETH_P_IP, ipv4(src4, tcpProto, 7, nil, make([]byte, 8)), snapWhole},
	{"last fragment, offset 64", unix.ETH_P_IP, ipv4(src4, tcpProto, 8, nil, tcp(11, syn)), 0},
	{"second fragment, udp", unix.ETH_P_IP, ipv4(src4, udpProto, 1, nil, tcp(8, 0)), 0},
	{"cut before the ports", unix.ETH_P_IP, syn4(11)[:22], 0},
	{"empty", unix.ETH_P_IP, nil, 0},

	{"tcp6 syn", unix.ETH_P_IPV6, ipv6(src6, tcpProto, tcp(11, syn)), snapHeaders},
	{"tcp6 syn, not listed", unix.ETH_P_IPV6, ipv6(src6, tcpProto, tcp(21, syn)), 0},
	{"tcp6 rst", unix.ETH_P_IPV6, ipv6(src6, tcpProto, tcp(11, rst)), 0},
	{"udp6", unix.ETH_P_IPV6, ipv6(src6, udpProto, udp(8, 0)), snapHeaders},
	{"udp6, not listed", unix.ETH_P_IPV6, ipv6(src6, udpProto, udp(10, 0)), 0},
	{"icmp6", unix.ETH_P_IPV6, ipv6(src6, unix.IPPROTO_ICMPV6, make([]byte, 8)), 0},
	{"esp", unix.ETH_P_IPV6, ipv6(src6, 50, make([]byte, 8)), 0},
	{"hop-by-hop", unix.ETH_P_IPV6, ipv6(src6, 0, extension(tcpProto, tcp(11, syn))), snapWhole},
	{"hop-by-hop, multicast listener report", unix.ETH_P_IPV6, ipv6(src6, 0, extension(unix.IPPROTO_ICMPV6, make([]byte, 8))), 0},
	{"routing", unix.ETH_P_IPV6, ipv6(src6, 43, extension(tcpProto, tcp(11, syn))), snapWhole},
	{"fragment", unix.ETH_P_IPV6, ipv6(src6, 44, extension(tcpProto, tcp(11, syn))), snapWhole},
	{"authentication", unix.ETH_P_IPV6, ipv6(src6, 51, extension(tcpProto, tcp(11, syn))), snapWhole},
	{"destination options", unix.ETH_P_IPV6, ipv6(src6, 60, extension(udpProto, udp(8, 0))), snapWhole},
	{"two extension headers", unix.ETH_P_IPV6, ipv6(src6, 60, extension(43, extension(tcpProto, tcp(11, syn)))), snapWhole},
	{"mobility, HIP, Shim6", unix.ETH_P_IPV6, ipv6(src6, 140, extension(tcpProto, nil)), snapWhole},
	{"version 4 as IPv6", unix.ETH_P_IPV6, append([]byte{0x45}, ipv6(src6, tcpProto, tcp(11, syn))[1:]...), 0},

	{"inner tag, tcp", unix.ETH_P_8021Q, tag(7, unix.ETH_P_IP, syn4(11)), snapHeaders},
	{"inner tag, not listed", unix.ETH_P_8021Q, tag(7, unix.ETH_P_IP, syn4(21)), 0},
	{"inner tag, options", unix.ETH_P_8021Q, tag(7, unix.ETH_P_IP, ipv4(src4, tcpProto, 0, make([]byte, 8), tcp(11, syn))), snapHeaders},
	{"inner tag, tcp6", unix.ETH_P_8021Q, tag(7, unix.ETH_P_IPV6, ipv6(src6, tcpProto, tcp(11, syn))), snapHeaders},
	{"inner tag, hop-by-hop", unix.ETH_P_8021Q, tag(7, unix.ETH_P_IPV6, ipv6(src6, 0, extension(tcpProto, tcp(11, syn)))), snapWhole},
	{"inner tag, ARP", unix.ETH_P_8021Q, tag(7, unix.ETH_P_ARP, syn4(11)), 0},
	{"three tags", unix.ETH_P_8021Q, tag(7, unix.ETH_P_8021Q, tag(8, unix.ETH_P_IP, syn4(21))), snapWhole},
}

func TestFilterCore(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			vm := coreVM(t, uint32(c.etherType), someTCP, someUDP, false)
			if got := run(t, vm, c.packet); got != c.want {
				t.Errorf("filter returns %d, want %d", got, c.want)
			}
		})
	}
}

// What may begin something passes to any port; the rest as without.
func TestFilterScans(t *testing.T) {
	icmp := func(kind byte) []byte { return append([]byte{kind}, make([]byte, 7)...) }
	sctp := func(chunk byte) []byte {
		return append(append([]byte{0, 9, 0, 21}, make([]byte, 8)...), chunk, 0, 0, 4)
	}
	four := func(proto byte, b []byte) []byte { return ipv4(src4, proto, 0, nil, b) }
	six := func(proto byte, b []byte) []byte { return ipv6(src6, proto, b) }
	const ip, ip6 = unix.ETH_P_IP, unix.ETH_P_IPV6
	for _, c := range []struct {
		name         string
		etherType    uint16
		packet       []byte
		traps, scans int
	}{
		{"syn", ip, syn4(21), 0, snapHeaders},
		{"syn to a trap", ip, syn4(11), snapHeaders, snapHeaders},
		{"fin", ip, four(tcpProto, tcp(21, fin)), 0, snapHeaders},
		{"null", ip, four(tcpProto, tcp(21, 0)), 0, snapHeaders},
		{"xmas", ip6, six(tcpProto, tcp(21, fin|psh|urg)), 0, snapHeaders},
		{"syn+fin", ip6, six(tcpProto, tcp(21, syn|fin)), 0, snapHeaders},
		{"ack", ip, four(tcpProto, tcp(21, ack)), 0, 0},
		{"ack to a trap", ip, four(tcpProto, tcp(11, ack)), snapHeaders, snapHeaders},
		{"maimon", ip6, six(tcpProto, tcp(21, fin|ack)), 0, 0},
		{"maimon to a trap", ip6, six(tcpProto, tcp(11, fin|ack)), snapHeaders, snapHeaders},
		{"data", ip, four(tcpProto, tcp(21, psh|ack)), 0, 0},
		{"syn+ack", ip, four(tcpProto, tcp(11, syn|ack)), 0, 0},
		{"rst", ip, four(tcpProto, tcp(11, rst)), 0, 0},
		{"udp, not listed", ip, four(udpProto, udp(11, 4)), 0, 0},
		{"udp", ip6, six(udpProto, udp(8, 0)), snapHeaders, snapHeaders},
		{"first fragment", ip, ipv4(src4, tcpProto, more, nil, tcp(21, syn)[:8]), 0, snapHeaders},
		{"first fragment, udp", ip, ipv4(src4, udpProto, more, nil, udp(11, 0)), 0, 0},
		{"second fragment", ip, ipv4(src4, tcpProto, more|1, nil, tcp(21, syn)[8:16]), snapWhole, snapWhole},
		{"init", ip, four(unix.IPPROTO_SCTP, sctp(1)), 0, snapHeaders},
		{"cookie-echo", ip6, six(unix.IPPROTO_SCTP, sctp(10)), 0, snapHeaders},
		{"sctp data", ip, four(unix.IPPROTO_SCTP, sctp(0)), 0, 0},
		{"echo", ip, four(unix.IPPROTO_ICMP, icmp(8)), 0, snapHeaders},
		{"echo, options", ip, ipv4(src4, unix.IPPROTO_ICMP, 0, make([]byte, 8), icmp(8)), 0, snapHeaders},
		{"echo, inner tag", unix.ETH_P_8021Q, tag(7, ip, four(unix.IPPROTO_ICMP, icmp(8))), 0, snapHeaders},
		{"timestamp", ip, four(unix.IPPROTO_ICMP, icmp(13)), 0, snapHeaders},
		{"mask", ip, four(unix.IPPROTO_ICMP, icmp(17)), 0, snapHeaders},
		{"echo reply", ip, four(unix.IPPROTO_ICMP, icmp(0)), 0, 0},
		{"unreachable", ip, four(unix.IPPROTO_ICMP, icmp(3)), 0, 0},
		{"echo, fragment", ip, ipv4(src4, unix.IPPROTO_ICMP, more, nil, icmp(8)), 0, 0},
		{"echo6", ip6, six(unix.IPPROTO_ICMPV6, icmp(128)), 0, snapHeaders},
		{"echo6 reply", ip6, six(unix.IPPROTO_ICMPV6, icmp(129)), 0, 0},
		{"neighbour solicitation", ip6, six(unix.IPPROTO_ICMPV6, icmp(135)), 0, 0},
		{"the other family's icmp", ip, four(unix.IPPROTO_ICMPV6, icmp(128)), 0, snapHeaders},
		{"the other family's icmp", ip6, six(unix.IPPROTO_ICMP, icmp(8)), 0, snapHeaders},
		{"protocol 143", ip, four(143, nil), 0, snapHeaders},
		{"protocol 143", ip6, six(143, nil), 0, snapHeaders},
		{"gre", ip, four(47, make([]byte, 8)), 0, 0},
		{"esp", ip6, six(50, make([]byte, 8)), 0, 0},
		{"no next header", ip6, six(59, nil), 0, 0},
	} {
		for scans, want := range []int{c.traps, c.scans} {
			vm := coreVM(t, uint32(c.etherType), someTCP, someUDP, scans == 1)
			if got := run(t, vm, c.packet); got != want {
				t.Errorf("%s, scans %v: %d, want %d", c.name, scans == 1, got, want)
			}
		}
	}
	raw, err := filterWithin(Spec{Scans: true}, maxInstructions)
	if err != nil || len(raw) < 10 {
		t.Errorf("without ports: %d instructions, %v", len(raw), err)
	}
}

// The program agrees with the set for every port, whatever the set.
func TestSearchMatchesSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 8, 9, 100, 1000} {
		set := randomSet(rng, n)
		want := set.Bitmap()
		if got := len(search(set)); got != searchLen(set) {
			t.Errorf("%d ranges: %d instructions, searchLen says %d", n, got, searchLen(set))
		}
		vm, err := bpf.NewVM(append([]bpf.Instruction{bpf.LoadAbsolute{Off: 0, Size: 2}}, search(set)...))
		if err != nil {
			t.Fatal(err)
		}
		for port := range 65536 {
			got := run(t, vm, []byte{byte(port >> 8), byte(port)}) == snapHeaders
			if got != want.Has(uint16(port)) {
				t.Fatalf("%d ranges: port %d: %v", n, port, got)
			}
		}
	}
}

// randomSet gives n ranges, half of them single ports.
func randomSet(rng *rand.Rand, n int) config.PortSet {
	var set config.PortSet
	step := 65000 / max(n, 1)
	for i := range n {
		first := 1 + i*step + rng.IntN(step/4+1)
		set = append(set, config.PortRange{First: uint16(first), Last: uint16(first + rng.IntN(2)*rng.IntN(step/2+1))})
	}
	return set
}

func everyOther() config.PortSet {
	var set config.PortSet
	for p := 1; p < 65536; p += 2 {
		set = append(set, config.PortRange{First: uint16(p), Last: uint16(p)})
	}
	return set
}

// The filter for any set fits and loses no port; thousands of ports are exact.
func TestFilterFits(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		name     string
		tcp, udp config.PortSet
		limit    int
		exact    bool
	}{
		{"nothing", nil, nil, maxInstructions, true},
		{"all", config.PortSet{{First: 1, Last: 65535}}, config.PortSet{{First: 1, Last: 65535}}, maxInstructions, true},
		{"advanced, N 2", advanced(2, 0), advanced(2, 0), maxInstructions, true},
		{"advanced, N 1024 less 300", advanced(1024, 300), advanced(1024, 300), maxInstructions, true},
		{"advanced, N 65536 less 300", advanced(65536, 300), advanced(65536, 300), maxInstructions, true},
		{"advanced, UDP only", nil, advanced(65536, 300), maxInstructions, true},
		{"advanced, N 65536 less 2000", advanced(65536, 2000), advanced(65536, 2000), maxInstructions, false},
		{"1000 mixed", randomSet(rng, 1000), randomSet(rng, 500), maxInstructions, true},
		{"2500 single", everyOther()[:2500], someUDP, maxInstructions, true},
		{"every other port", everyOther(), everyOther(), maxInstructions, false},
		{"little option memory", randomSet(rng, 1000), randomSet(rng, 1000), 256, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw, err := filterWithin(Spec{TCP: c.tcp, UDP: c.udp, IfIndexes: []int32{1, 2, 3}}, c.limit)
			if err != nil {
				t.Fatal(err)
			}
			if len(raw) > c.limit {
				t.Fatalf("%d instructions", len(raw))
			}
			t.Logf("%d+%d ranges: %d instructions", len(c.tcp), len(c.udp), len(raw))
			ins, ok := bpf.Disassemble(raw)
			if !ok {
				t.Fatal("not disassembled")
			}
			// The prologue asks for what the VM does not have: enter at IPv4, which
			// follows the interface tests and begins with the first LoadExtension of
			// the EtherType.
			for i, in := range ins {
				if in == (bpf.LoadExtension{Num: bpf.ExtProto}) {
					ins = append([]bpf.Instruction{bpf.LoadConstant{Val: unix.ETH_P_IP}}, ins[i+1:]...)
					break
				}
			}
			vm, err := bpf.NewVM(ins)
			if err != nil {
				t.Fatal(err)
			}
			wantTCP, wantUDP := c.tcp.Bitmap(), c.udp.Bitmap()
			for port := 0; port < 65536; port += 5 {
				p := uint16(port)
				gotTCP := run(t, vm, syn4(p)) != 0
				gotUDP := run(t, vm, ipv4(src4, udpProto, 0, nil, udp(p, 0))) != 0
				if wantTCP.Has(p) && !gotTCP || wantUDP.Has(p) && !gotUDP {
					t.Fatalf("port %d lost", port)
				}
				if c.exact && (gotTCP != wantTCP.Has(p) || gotUDP != wantUDP.Has(p)) {
					t.Fatalf("port %d let through", port)
				}
			}
		})
	}
}

func TestFilterTooSmall(t *testing.T) {
	if _, err := filterWithin(Spec{TCP: someTCP}, 16); err == nil {
		t.Error("a filter of 16 instructions")
	}
}

// The worker depends on the source address alone, and all get their share.
func TestSpread(t *testing.T) {
	for _, c := range []struct {
		name      string
		etherType uint32
		packet    func(i int, port uint16) []byte
	}{
		{"IPv4", unix.ETH_P_IP, func(i int, port uint16) []byte {
			return ipv4(netip.AddrFrom4([4]byte{10, 0, byte(i >> 6), byte(i << 2)}), tcpProto, 0, nil, tcp(port, syn))
		}},
		{"IPv6", unix.ETH_P_IPV6, func(i int, port uint16) []byte {
			a := src6.As16()
			a[6], a[7], a[15] = byte(i>>8), byte(i), byte(port)
			return ipv6(netip.AddrFrom16(a), tcpProto, tcp(port, syn))
		}},
		{"tagged", unix.ETH_P_8021Q, func(i int, port uint16) []byte {
			return tag(port, unix.ETH_P_IP, ipv4(netip.AddrFrom4([4]byte{10, 0, byte(i >> 6), byte(i << 2)}), tcpProto, 0, nil, tcp(port, syn)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p program
			p.emit(bpf.LoadConstant{Val: c.etherType})
			p.spreadByType()
			p.spreadCore()
			vm, err := bpf.NewVM(p.resolve())
			if err != nil {
				t.Fatal(err)
			}
			var share [4]int
			for i := range 4096 {
				worker := run(t, vm, c.packet(i, 1)) % 4
				share[worker]++
				for port := uint16(2); port < 6; port++ {
					if got := run(t, vm, c.packet(i, port)) % 4; got != worker {
						t.Fatalf("source %d: worker %d and %d", i, worker, got)
					}
				}
			}
			for _, n := range share {
				if n < 900 || n > 1150 {
					t.Errorf("sources by worker: %v", share)
					break
				}
			}
		})
	}
	if _, err := spread(); err != nil {
		t.Error(err)
	}
}

func TestSocketErrorNamesCapability(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EPERM, unix.EACCES} {
		if err := socketError(errno); !errors.Is(err, errno) || err.Error() != "afpacket: open packet socket: needs CAP_NET_RAW: "+errno.Error() {
			t.Error(err)
		}
	}
}
