package decode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
)

// host is a network namespace reached through a tun device: what Linux makes
// of the very bytes that a Decoder is given.
type host struct{ fd int }

// newHost makes a namespace that has dst4 and dst6 and nothing listening. The
// test's goroutine keeps its thread, and the namespace ends with both.
func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root: makes a network namespace and a tun device")
	}
	t.Log("as root in a network namespace of its own")
	runtime.LockOSThread() // never unlocked, so that no other test gets this thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		if os.Getenv("CI") != "true" {
			t.Skipf("needs /dev/net/tun: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	ifr, err := unix.NewIfreq("probe0")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"net/ipv4/icmp_ratelimit": "0", "net/ipv6/icmp/ratelimit": "0", "net/ipv4/ipfrag_high_thresh": "67108864", "net/ipv6/ip6frag_high_thresh": "67108864",
		"net/ipv6/conf/all/accept_ra": "0", "net/ipv6/conf/probe0/addr_gen_mode": "1",
	} {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{
		"link set lo up", "link set probe0 up",
		"addr add " + dst4.String() + "/24 dev probe0", "route add default dev probe0",
		"-6 addr add " + dst6.String() + "/64 dev probe0 nodad", "-6 route add default dev probe0",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	h := &host{fd: fd}
	for deadline := time.Now().Add(5 * time.Second); !slices.ContainsFunc(h.answers(t, syn6()), took); {
		if time.Now().After(deadline) { // the carrier of a new link is noticed late
			t.Fatal("IPv6 does not come up")
		}
	}
	return h
}

// answers sends packets and returns what the host answers to them, told from
// what follows by the reply to an echo request sent behind them.
func (h *host) answers(t *testing.T, packets ...[]byte) []Probe {
	t.Helper()
	echo := v4{proto: 1, payload: sumAt(nil, 2, []byte{8, 0, 0, 0, 1, 2, 3, 4})}.bytes()
	for _, b := range append(packets, echo) {
		if _, err := unix.Write(h.fd, b); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
	}
	var out []Probe
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}, int(5*time.Second/time.Millisecond))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("no answer to the echo request: %v", err)
		}
		b := make([]byte, 65536)
		if n, err = unix.Read(h.fd, b); err != nil {
			t.Fatal(err)
		}
		p, st := decodeOne(&capture.Frame{Data: b[:n], WireLen: n, Link: capture.LinkRaw})
		switch {
		case st != Complete:
			t.Fatalf("the host sent %x: status %d", b[:n], st)
		case p.Proto == ProtoICMP && p.ICMPType == 0 && bytes.HasSuffix(b[:n], echo[24:]):
			return out
		}
		out = append(out, p)
	}
}

// took reports whether p says that a probe reached the transport layer of a
// host where nothing listens: a RST, or port unreachable.
func took(p Probe) bool {
	return p.Proto == ProtoTCP && p.Flags&RST != 0 ||
		p.Proto == ProtoICMP && p.ICMPType == 3 && p.ICMPCode == 3 ||
		p.Proto == ProtoICMPv6 && p.ICMPType == 1 && p.ICMPCode == 4
}

const bad = BadIPChecksum | BadChecksum | BadLength

// What Linux takes is Complete and has no mark that says the opposite.
func TestLinuxAgrees(t *testing.T) {
	h := newHost(t)
	n := 0
	for _, rows := range [][]packet{ipv4Packets(), ipv6Packets(), transportPackets()} {
		for _, r := range rows {
			if r.b[0]>>4 != 4 && r.b[0]>>4 != 6 {
				continue // tun refuses other versions
			}
			for _, a := range h.answers(t, r.b) {
				if !took(a) {
					continue
				}
				n++
				if p, st := decodeOne(r.frame()); st != Complete || p.Marks&bad != 0 || p.DstPort == 0 {
					t.Errorf("%s: Linux answered %d/%d, Decode says %d, marks %#x", r.name, a.Proto, a.Flags, st, p.Marks)
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("Linux took %d packets: too few to mean anything", n)
	}
}

// The same for packets with one to three bytes changed at random, checksums
// made right again where they can be found.
func TestLinuxAgreesOnMutants(t *testing.T) {
	h := newHost(t)
	rng := rand.New(rand.NewPCG(5, 6))
	taken := map[bool]int{}
	for range 6000 {
		b, v6 := mutant(rng)
		for _, a := range h.answers(t, b) {
			if !took(a) {
				continue
			}
			taken[v6]++
			f := net4(b)
			if v6 {
				f = net6(b)
			}
			p, st := decodeOne(f)
			if st != Complete || p.Marks&bad != 0 || a.Proto == ProtoTCP && (p.DstPort != a.SrcPort || p.Src != a.Dst) {
				t.Errorf("%x: Linux answered %d/%#x, Decode says %d, %+v", b, a.Proto, a.Flags, st, p)
			}
		}
	}
	if taken[false] < 500 || taken[true] < 500 {
		t.Errorf("Linux took %v packets: too few to mean anything", taken)
	}
}

// mutant changes bytes of a packet to a closed port that Linux would take.
func mutant(rng *rand.Rand) (b []byte, v6 bool) {
	seg := [2][]byte{tcpSeg(40000, 11, SYN, mss1460, []byte("data")), udpSeg(40000, 11, []byte("data"))}
	which := rng.IntN(2)
	proto, at := []uint8{6, 17}[which], []int{16, 6}[which]
	s := seg[which]
	if rng.IntN(3) == 0 {
		s[rng.IntN(len(s))] = byte(rng.Uint32())
	}
	if v6 = rng.IntN(2) == 0; v6 {
		s = sum6(proto, at, s)
		b = [][]byte{
			v6Packet(proto, s), v6Packet(0, ext(proto, 8), s), v6Packet(60, ext(proto, 16), s),
			v6Packet(0, ext(60, 8), ext(proto, 8), s), v6Packet(43, routing(proto, 0), s),
			v6Packet(44, fragHdr(proto, 0, false, 9), s), v6Packet(60, ext(44, 8), fragHdr(60, 0, false, 9), ext(proto, 8), s),
		}[rng.IntN(7)]
		for range rng.IntN(3) {
			b[[]int{0, 4, 5, 6, 7, 40 + rng.IntN(len(b)-40)}[rng.IntN(6)]] = byte(rng.Uint32N(256) & rng.Uint32N(256))
		}
		b[0] = b[0]&15 | 0x60 // tun refuses other versions
		return b, true
	}
	s = sum4(proto, at, s)
	b = v4{proto: proto, opts: [][]byte{nil, {1, 1, 1, 0}, {7, 7, 4, 0, 0, 0, 0, 0}, {0x94, 4, 0, 0}}[rng.IntN(4)], payload: s}.bytes()
	for range rng.IntN(3) {
		b[rng.IntN(min(len(b), 12))] = byte(rng.Uint32N(256) & rng.Uint32N(256))
	}
	if hlen := int(b[0]&15) * 4; hlen >= 20 && hlen <= len(b) && rng.IntN(8) > 0 {
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], slowSum(b[:hlen]))
	}
	b[0] = b[0]&15 | 0x40 // tun refuses other versions
	return b, false
}

func v6Packet(next uint8, parts ...[]byte) []byte { return v6{next, cat(parts...)}.bytes() }

// Fragments in any order, doubled, overlapping, with contradicting bytes: when
// Linux makes a SYN of them, so does Decode, or it marks its answer.
func TestLinuxReassembles(t *testing.T) {
	h, d := newHost(t), new(Decoder)
	rng := rand.New(rand.NewPCG(3, 4))
	taken := map[bool]int{}
	for id := 1; id <= 1500; id++ {
		v6 := id%2 == 0
		script, frames, packets := randomScript(rng, id, v6)
		linux := ""
		for _, a := range h.answers(t, packets...) {
			if a.Proto == ProtoTCP && a.SrcPort == 11 {
				linux = map[bool]string{true: "SYN", false: "ACK"}[a.Flags&ACK != 0] // RFC 9293 section 3.10.7.1
			}
		}
		ours := ""
		for _, f := range frames {
			var p Probe
			if d.Decode(f, &p) == Complete {
				ours += map[bool]string{true: "SYN", false: "ACK"}[p.Flags&SYN != 0]
				if p.Marks&Overlapping != 0 {
					ours += " or " + linux
				}
			}
		}
		if linux != "" {
			taken[v6]++
			if !strings.Contains(ours, linux) {
				t.Errorf("IPv6 %v, %s: Linux took %s, Decode said %q", v6, script, linux, ours)
			}
		}
	}
	if taken[false] < 50 || taken[true] < 50 {
		t.Errorf("Linux took %v scripts: too few to mean anything", taken)
	}
}

// randomScript cuts a SYN and an ACK to the same port into fragments and mixes
// them.
func randomScript(rng *rand.Rand, id int, v6 bool) (script string, frames []*capture.Frame, packets [][]byte) {
	sum := sum4
	if v6 {
		sum = sum6
	}
	segs := [2][]byte{}
	for i, flags := range []uint16{SYN, ACK} {
		segs[i] = sum(6, 16, tcpSeg(40000, 11, flags, cat(mss1460, repeat([]byte{1}, 8)), []byte("data")))
	}
	add := func(kind, off, end int, more bool) {
		b := segs[kind][off:end]
		f := one4(id, off, more, b)
		if v6 {
			f = one6(uint32(id), off, more, b)
		}
		frames, packets = append(frames, f), append(packets, f.Data)
		script += fmt.Sprintf(" %s[%d:%d]%v", []string{"syn", "ack"}[kind], off, end, more)
	}
	// A SYN whole at the end, behind and between anything. IPv6 wants the whole
	// TCP header in the first fragment.
	first := 8 * (1 + rng.IntN(4))
	if v6 && rng.IntN(4) > 0 {
		first = 24
	}
	for range rng.IntN(4) {
		off := 8 * rng.IntN(4)
		end := min(36, off+8*(1+rng.IntN(4)))
		if off > 0 || end < 36 {
			add(rng.IntN(2), off, end, end%8 == 0 && rng.IntN(8) > 0)
		}
	}
	for off := 0; off < 36; {
		end := min(36, off+8*(1+rng.IntN(2)))
		if off == 0 {
			end = first
		}
		add(0, off, end, end < 36)
		off = end
	}
	if rng.IntN(2) == 0 {
		rng.Shuffle(len(frames), func(i, j int) {
			frames[i], frames[j] = frames[j], frames[i]
			packets[i], packets[j] = packets[j], packets[i]
		})
		script += " shuffled"
	}
	return script, frames, packets
}
