package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Answers of any length pass the checksum test of the receiver, and come from
// where the probe went to.
func TestAnswersAreWhole(t *testing.T) {
	enterSpace(t)
	there := newPeer(t)
	k := startTraps(t, Config{UDP: ports(2000)})
	k.steered(t)
	for _, c := range []struct{ length, want int }{{1, 1}, {2, 2}, {999, 999}, {maxAnswer, maxAnswer}, {maxAnswer + 1, maxAnswer}} {
		b := bytes.Repeat([]byte{0xff}, c.length)
		if err := k.SetPorts(nil, ports(2000), b); err != nil {
			t.Fatal(err)
		}
		there.do(func() {
			for _, to := range []netip.AddrPort{end(here4, 2000), end(here6, 2000)} {
				if got := get(t, "udp", to); got != string(b[:c.want]) {
					t.Errorf("%v: %d bytes of %d", to, len(got), c.want)
				}
			}
		})
	}
}

func TestAnswersWithheld(t *testing.T) {
	enterSpace(t)
	there := newPeer(t)
	k := startTraps(t, Config{UDP: ports(2000, 2001, 40000), Banner: []byte(banner)})
	k.steered(t)
	withheld := uint64(0)
	for _, c := range []struct {
		name string
		from uint16
		data string
		to   netip.AddrPort
	}{
		{"a reflector", 53, "?", end(here4, 2000)},
		{"another trap", 2001, "?", end(here4, 2000)},
		{"another's banner", 5000, "x" + banner + "y", end(here6, 2000)},
		// The kernel does not steer these, so they go to the port that is bound.
		{"broadcast", 5001, "?", end("192.0.2.255", 40000)},
		{"multicast", 5002, "?", end("ff02::1", 40000)},
	} {
		before := k.count()
		there.do(func() {
			pc, err := net.ListenPacket("udp", net.JoinHostPort("", strconv.Itoa(int(c.from))))
			if err != nil {
				t.Error(err)
				return
			}
			defer pc.Close()
			to := net.UDPAddrFromAddrPort(c.to)
			if c.to.Addr().IsMulticast() {
				far, err := net.InterfaceByName("far")
				if err != nil {
					t.Error(err)
					return
				}
				to.Zone = strconv.Itoa(far.Index)
			}
			// Multicast has no route until the link is known to be up.
			for deadline := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
				_, err := pc.WriteTo([]byte(c.data), to)
				if err == nil {
					return
				}
				if !errors.Is(err, unix.ENETUNREACH) || time.Now().After(deadline) {
					t.Errorf("%s: %v", c.name, err)
					return
				}
			}
		})
		withheld++
		eventually(t, c.name, func() bool { return k.Stats().Withheld == withheld })
		if k.count() != before+1 {
			t.Errorf("%s: %d contacts", c.name, k.count()-before)
		}
	}
	if s := k.Stats(); s.Banners != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAnswersAreFew(t *testing.T) {
	a := &answerer{}
	now := time.Unix(1000, 0)
	for i := range 3 * maxAnswers {
		if got, want := a.allow(now), i < maxAnswers; got != want {
			t.Fatalf("number %d: %v", i+1, got)
		}
	}
	if !a.allow(now.Add(time.Second)) {
		t.Error("none in the next second")
	}
}

// No raw socket, no answer, and that is said.
func TestAnswersImpossible(t *testing.T) {
	a := &answerer{raw4: -1, raw6: -1}
	err := a.send([]byte("x"), arrival{to: end(here4, 1)}, end(there4, 2))
	if !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Error(err)
	}
}

// RFC 1071, section 3: its example words, with what makes a pseudo-header of
// zeros but for protocol and length taken off the sum.
func TestChecksum(t *testing.T) {
	zero := netip.IPv4Unspecified()
	words := []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}
	const sum = 0xddf2 // of the words
	if got, want := checksum(zero, zero, words), ^uint16(sum+17+8); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
	zeroSum := make([]byte, 10)
	binary.BigEndian.PutUint16(zeroSum, 0xffff-17-10)
	if got := checksum(zero, zero, zeroSum); got != 0xffff {
		t.Errorf("%#x for none", got)
	}
}

// What the kernel has never sent is no arrival, and nothing is read beyond it.
func FuzzArrival(f *testing.F) {
	f.Add(append(unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: 1}), unix.PktInfo6(&unix.Inet6Pktinfo{})...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, oob []byte) {
		a, ok := parseArrival(oob)
		if ok != a.to.IsValid() || a.unicast && !a.to.IsValid() {
			t.Errorf("%+v, %v", a, ok)
		}
	})
}

func TestArrivalOfADatagram(t *testing.T) {
	enterSpace(t)
	for _, v6 := range []bool{false, true} {
		s, err := newSocket(unix.IPPROTO_UDP, v6, 2000)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(s.fd)
		to := end("127.0.0.5", 2000)
		if v6 {
			to = end("::1", 2000)
		}
		c := dial(t, "udp", to)
		if c == nil {
			t.FailNow()
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		oob := make([]byte, 128)
		_, n, _, _, err := unix.Recvmsg(s.fd, make([]byte, 10), oob, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("lost on loopback")
		}
		a, ok := parseArrival(oob[:n])
		if err != nil || !ok || a != (arrival{to: to, ifIndex: 1, unicast: true}) {
			t.Errorf("%+v, %v, %v", a, ok, err)
		}
		for i := range oob[:n] { // cut short anywhere
			if a, ok := parseArrival(oob[:i:i]); ok && a.unicast && i < n-8 {
				t.Errorf("%d of %d bytes: %+v", i, n, a)
			}
		}
	}
}
