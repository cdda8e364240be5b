package flows

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// start is when the captures of these tests begin, unix nanoseconds.
const start = int64(1_700_000_000e9)

// hosts are the letters of the scripts, in both families.
var hosts = [2]map[string]netip.Addr{
	{
		"C": netip.MustParseAddr("192.0.2.1"), "S": netip.MustParseAddr("198.51.100.2"), "T": netip.MustParseAddr("198.51.100.3"),
		"R": netip.MustParseAddr("203.0.113.1"), "M": netip.MustParseAddr("239.255.255.250"), "0": netip.MustParseAddr("0.0.0.0"),
	},
	{
		"C": netip.MustParseAddr("2001:db8:9::1"), "S": netip.MustParseAddr("2001:db8:2::2"), "T": netip.MustParseAddr("2001:db8:2::3"),
		"R": netip.MustParseAddr("2001:db8::1"), "M": netip.MustParseAddr("ff02::c"), "0": netip.MustParseAddr("::"),
	},
}

var protos = map[string]uint8{"tcp": 6, "udp": 17, "icmp": 1, "sctp": 132}

// parse makes a packet of a line: seconds, protocol, source, destination, then
// TCP flags in capitals, and numbers by name.
//
//	0.5 tcp C:40000 S:80 S seq=7
//	0.5 icmp R C type=3 code=1 about=udp,C:4000,S:53
func parse(t testing.TB, line string, six bool) (decode.Probe, *capture.Frame) {
	t.Helper()
	w := strings.Fields(line)
	at, err := strconv.ParseFloat(w[0], 64)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	family := hosts[0]
	if six {
		family = hosts[1]
	}
	end := func(s string) (netip.Addr, uint16) {
		name, port, _ := strings.Cut(s, ":")
		a, ok := family[name]
		if !ok {
			a = netip.MustParseAddr(name)
		}
		n, _ := strconv.Atoi(port)
		return a, uint16(n)
	}
	number := func(s string) uint8 {
		if n, ok := protos[s]; ok {
			if s == "icmp" && six {
				return decode.ProtoICMPv6
			}
			return n
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return uint8(n)
	}
	p := decode.Probe{Time: start + int64(at*1e9), TTL: 64, Proto: number(w[1])}
	p.Src, p.SrcPort = end(w[2])
	p.Dst, p.DstPort = end(w[3])
	var f *capture.Frame
	for _, o := range w[4:] {
		name, value, set := strings.Cut(o, "=")
		if !set {
			for _, c := range name {
				p.Flags |= 1 << strings.IndexRune("FSRPAU", c)
			}
			continue
		}
		if name == "about" {
			q := strings.Split(value, ",")
			src, sp := end(q[1])
			dst, dp := end(q[2])
			f = quoting(&p, number(q[0]), src, dst, sp, dp)
			continue
		}
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		switch name {
		case "seq":
			p.Seq = uint32(n)
		case "ack":
			p.Ack = uint32(n)
		case "len":
			p.PayloadLen = int(n)
		case "win":
			p.Window = uint16(n)
		case "opts":
			p.TCPOptionsLen = uint8(n)
		case "mss":
			p.MSS = uint16(n)
		case "ttl":
			p.TTL = uint8(n)
		case "type":
			p.ICMPType = uint8(n)
		case "code":
			p.ICMPCode = uint8(n)
		case "chunk":
			p.SCTPChunk = uint8(n)
		default:
			t.Fatalf("%q: what is %q?", line, name)
		}
	}
	return p, f
}

// quoting makes p an ICMP error about another packet: its frame, as far as Quote
// reads it.
func quoting(p *decode.Probe, proto uint8, src, dst netip.Addr, sp, dp uint16) *capture.Frame {
	ip := func(proto uint8, src, dst netip.Addr) []byte {
		if src.Is4() {
			b := make([]byte, 20)
			b[0], b[8], b[9] = 0x45, 64, proto
			return slices.Concat(b[:12], src.AsSlice(), dst.AsSlice())
		}
		b := make([]byte, 8)
		b[0], b[6], b[7] = 0x60, proto, 64
		return slices.Concat(b, src.AsSlice(), dst.AsSlice())
	}
	inner := make([]byte, 8)
	binary.BigEndian.PutUint16(inner, sp)
	binary.BigEndian.PutUint16(inner[2:], dp)
	if proto == decode.ProtoICMP {
		inner[0] = 8
	} else if proto == decode.ProtoICMPv6 {
		inner[0] = 128
	}
	quoted := slices.Concat(ip(proto, src, dst), inner)
	p.PayloadLen = len(quoted)
	b := slices.Concat(ip(p.Proto, p.Src, p.Dst), make([]byte, 8), quoted)
	return &capture.Frame{Time: p.Time, Data: b, WireLen: len(b), Link: capture.LinkRaw}
}

// say is a contact in a line: C:40000>S:80 syn refused, and what else is true of it.
func say(c *detect.Contact, six bool) string {
	family := hosts[0]
	if six {
		family = hosts[1]
	}
	name := func(a netip.Addr, port uint16) string {
		s := a.String()
		for n, h := range family {
			if h == a {
				s = n
			}
		}
		if port != 0 {
			s += fmt.Sprint(":", port)
		}
		return s
	}
	s := name(c.Src, c.SrcPort) + ">" + name(c.Dst, c.DstPort) + " " + c.Kind.String() + " " +
		[]string{"silent", "refused", "answered"}[c.Outcome]
	if c.Verified {
		s += " verified"
	}
	if c.Spoke {
		s += " spoke"
	}
	if c.Ended {
		s += " ended"
	}
	return s
}

// play runs a script and returns the contacts in the order in which they came.
// A line END ends the capture; it ends behind the last one anyway, ten seconds on.
func play(t testing.TB, script string, six bool) (got []string, stats Stats) {
	t.Helper()
	tr := New(Options{Flows: 4096}, func(c *detect.Contact) {
		if c.Head.Dst != c.Dst || c.Head.Proto != c.Proto || c.Head.DstPort != c.DstPort || c.Time < start {
			t.Errorf("contact %+v, header %+v", c, c.Head)
		}
		got = append(got, say(c, six))
	})
	last := start
	tr.Packet(&decode.Probe{Time: start, Src: hosts[0]["C"], Dst: hosts[0]["M"], Proto: 2}, nil) // the capture begins
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if line == "END" {
			tr.Flush()
			continue
		}
		p, f := parse(t, line, six)
		tr.Packet(&p, f)
		last = p.Time
	}
	tr.tick(last + int64(10*time.Second))
	tr.Flush()
	return got, tr.Stats()
}

// script is one rule: packets, and what is to come of them.
type script struct {
	name    string
	packets string
	want    []string
	only4   bool // there is no such thing in IPv6
	only6   bool
}

func check(t *testing.T, scripts []script) {
	t.Helper()
	for _, s := range scripts {
		for _, six := range []bool{false, true} {
			if six && s.only4 || !six && s.only6 {
				continue
			}
			t.Run(fmt.Sprintf("%s/six=%v", s.name, six), func(t *testing.T) {
				if got, _ := play(t, s.packets, six); !slices.Equal(got, s.want) {
					t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(s.want, "\n\t"))
				}
			})
		}
	}
}
