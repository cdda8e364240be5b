package tools

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

type header = detect.Header

var (
	here4 = netip.MustParseAddr("192.0.2.17") // 0xc0000211
	here6 = netip.MustParseAddr("2001:db8::17")
)

func load(t testing.TB) *Set {
	t.Helper()
	s, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// with is h changed by f.
func with(h header, f func(*header)) header {
	f(&h)
	return h
}

// tcp is the beginning of a TCP packet of one of these programs.
func tcp(dst netip.Addr, flags, window uint16, options uint8, mss uint16) header {
	return header{
		Dst: dst, SrcPort: 50000, DstPort: 80, Proto: decode.ProtoTCP, Flags: flags, Window: window,
		OptionsLen: options, MSS: mss, Seq: 0x12345678, TTL: 50, IPID: 4711,
	}
}

// signed is a packet with what came before it, and how it is named.
type signed struct {
	name   string
	before *header
	now    header
	tool   string
	run    uint64 // without the tool
	noRun  bool
	// near are changes that each take the name away, or give another one.
	near map[string]func(*header)
}

const (
	syn  = decode.SYN
	xmas = decode.FIN | decode.PSH | decode.URG
)

func unDF(h *header)    { h.DF = !h.DF }
func newSeq(h *header)  { h.Seq += 0x01010003 }
func newAck(h *header)  { h.Ack++ }
func newID(h *header)   { h.IPID ^= 1 }
func newTTL(h *header)  { h.TTL = 120 }
func newDst(h *header)  { h.Dst = netip.MustParseAddr("198.51.100.9") }
func window(h *header)  { h.Window += 2 }
func options(h *header) { h.OptionsLen += 4 }
func mss(h *header)     { h.MSS-- }
func isAck(h *header)   { h.Flags = decode.ACK }
func ecn(h *header)     { h.Flags |= decode.ECE | decode.CWR }
func isUDP(h *header)   { h.Proto = decode.ProtoUDP }

func signatures() []signed {
	masscan := with(tcp(here4, syn, 1024, 0, 0), func(h *header) { h.TTL = 240; h.IPID = (0xc0000211 ^ 80 ^ 0x12345678) & 0xffff })
	masscan6 := with(tcp(here6, syn, 1025, 4, 1460), func(h *header) { h.TTL = 240; h.IPID = 0 })
	zmap := with(tcp(here4, syn, 65535, 0, 0), func(h *header) { h.TTL = 240; h.IPID = 54321 })
	zmapUDP := header{Dst: here4, Proto: decode.ProtoUDP, SrcPort: 40000, DstPort: 53, PayloadLen: 9, IPID: 54321, TTL: 235}
	zmapICMP := header{Dst: here4, Proto: decode.ProtoICMP, ICMPType: 8, PayloadLen: 12, IPID: 54321, TTL: 235}
	zmap41 := tcp(here4, syn, 65535, 12, 1460)
	nmap := tcp(here4, syn, 1024, 4, 1460)
	nmap6 := with(tcp(here6, syn, 1024, 4, 1460), func(h *header) { h.TTL = 250 })
	ack := with(tcp(here4, decode.ACK, 1024, 0, 0), func(h *header) { h.Seq, h.Ack = 0, 0xaaaa0001 })
	naabu := with(nmap, func(h *header) { h.DF, h.TTL = true, 60 })
	naabu6 := with(nmap6, func(h *header) { h.TTL = 60 })
	naabu6Before := with(naabu6, func(h *header) { h.Dst = netip.Addr{}; h.Seq--; h.DstPort = 81 })
	fi6s := with(tcp(here6, syn, 4096, 0, 0), func(h *header) { h.TTL = 60; h.Seq = 0xf0000000 })
	fi6sNew := with(fi6s, func(h *header) { h.Seq = 77 })
	fi6sBefore := with(fi6sNew, func(h *header) { h.Dst = netip.Addr{}; h.SrcPort, h.DstPort = 20001, 81 })
	hping := with(tcp(here4, syn, 512, 0, 0), func(h *header) { h.Ack = 99 })
	plain := with(hping, func(h *header) { h.Ack = 0 })
	const key = 0xdeadbeef
	unicornscan := with(tcp(here4, syn, 4128, 20, 1460), func(h *header) { h.DF = true; h.Seq = key ^ 0x110200c0 ^ (80<<16 + 50000) })
	unicornBefore := header{Dst: netip.MustParseAddr("192.0.2.18"), Proto: decode.ProtoTCP, Flags: syn, Window: 4128, SrcPort: 50001, DstPort: 443,
		Seq: key ^ 0x120200c0 ^ (443<<16 + 50001)}
	unicornBig := with(unicornscan, func(h *header) { h.Seq = key ^ 0xc0000211 ^ (80<<16 + 50000) })
	unicornBigBefore := with(unicornBefore, func(h *header) { h.Seq = key ^ 0xc0000212 ^ (443<<16 + 50001) })
	ptr := func(h header, f func(*header)) *header {
		f(&h)
		return &h
	}
	near := func(fs ...func(*header)) map[string]func(*header) {
		m := make(map[string]func(*header))
		for i, f := range fs {
			m[fmt.Sprint(i)] = f
		}
		return m
	}
	list := []signed{
		{name: "mirai", now: with(tcp(here4, syn, 29200, 0, 0), func(h *header) { h.Seq = 0xc0000211 }), tool: "mirai", noRun: true,
			near: near(newSeq, newDst, isAck, isUDP, func(h *header) { h.Seq = 0x110200c0 })},
		{name: "masscan", now: masscan, tool: "masscan", run: 50000, near: near(newSeq, newID, newTTL, newDst, unDF, window, isAck, newAck, ecn, func(h *header) { h.DstPort++ })},
		{name: "masscan with MSS", now: with(masscan, func(h *header) { h.Window, h.OptionsLen, h.MSS = 1025, 4, 1460 }), tool: "masscan", run: 50000, near: near(newSeq, newID)},
		{name: "masscan -6", now: masscan6, tool: "masscan", run: 50000, near: near(newTTL, options, mss, isAck)},
		{name: "masscan 1.3 -6", now: with(masscan6, func(h *header) { h.Window, h.OptionsLen, h.MSS = 1024, 0, 0 }), tool: "masscan", run: 50000, near: near(newTTL, options, isAck)},
		{name: "zmap", now: zmap, tool: "zmap", noRun: true, near: near(newID, unDF, window, isAck, newAck)},
		{name: "zmap udp", now: zmapUDP, tool: "zmap", noRun: true, near: near(newID, unDF, newTTL)},
		{name: "zmap icmp", now: zmapICMP, tool: "zmap", noRun: true, near: near(newID, unDF, newTTL, func(h *header) { h.ICMPType = 13 })},
		{name: "zmap 4.1", now: zmap41, tool: "zmap", noRun: true, near: near(unDF, newTTL, options, mss, window, isAck)},
		{name: "nmap -sS", now: nmap, tool: "nmap", run: 0x1234 ^ 0x5678, near: near(unDF, options, mss, window, ecn, newAck, isUDP)},
		{name: "nmap -sS, the number of the next try", now: with(nmap, func(h *header) { h.Seq ^= 0x00010001 }), tool: "nmap", run: 0x1234 ^ 0x5678},
		{name: "nmap -6 -sS", now: nmap6, tool: "nmap", run: 0x1234 ^ 0x5678, near: near(newTTL, options, mss)},
		{name: "nmap -sF", now: tcp(here4, decode.FIN, 1024, 0, 0), tool: "nmap", run: 0x1234 ^ 0x5678, near: near(unDF, options, window, newAck, isAck)},
		{name: "nmap -sN", now: tcp(here4, 0, 1024, 0, 0), tool: "nmap", run: 0x1234 ^ 0x5678, near: near(unDF, options, window)},
		{name: "nmap -sX", now: tcp(here6, xmas, 1024, 0, 0), tool: "nmap", run: 0x1234 ^ 0x5678, near: near(options, window)},
		{name: "nmap -sA", now: ack, tool: "nmap", run: 0xaaab, near: near(newSeq, unDF, options, window, func(h *header) { h.Ack = 0 })},
		{name: "nmap -sM", now: with(ack, func(h *header) { h.Flags |= decode.FIN }), tool: "nmap", run: 0xaaab, near: near(newSeq, unDF)},
		{name: "naabu", before: ptr(naabu, func(h *header) { h.Seq--; h.DstPort = 81 }), now: naabu, tool: "naabu", run: 0x1234<<16 | 50000, near: near(newSeq, options, mss, window)},
		{name: "naabu, some went elsewhere", before: ptr(naabu, func(h *header) { h.Seq -= 4096; h.DstPort = 81 }), now: naabu, tool: "naabu", run: 0x1234<<16 | 50000,
			near: near(func(h *header) { h.Seq++ }, func(h *header) { h.Seq -= 4096 })},
		{name: "naabu -6", before: &naabu6Before, now: naabu6, tool: "naabu", run: 0x1234<<16 | 50000, near: near(newSeq, newTTL)},
		{name: "naabu 2.0", now: with(naabu, func(h *header) { h.MSS = 0x1234 }), tool: "naabu", run: 0x1234<<16 | 50000, near: near(mss, window, options)},
		{name: "unicornscan", before: &unicornBefore, now: unicornscan, tool: "unicornscan", run: key, near: near(newSeq, newDst, window, isAck, func(h *header) { h.SrcPort++ })},
		{name: "unicornscan, big-endian", before: &unicornBigBefore, now: unicornBig, tool: "unicornscan", run: key, near: near(newSeq, newDst)},
		{name: "fi6s", now: fi6s, tool: "fi6s", noRun: true, near: near(newSeq, options, window, isAck)},
		{name: "fi6s, a number for the run", before: &fi6sBefore, now: fi6sNew, tool: "fi6s", run: 77, near: near(newSeq, options, window)},
		{name: "hping", now: hping, tool: "hping", noRun: true, near: near(unDF, options, window, func(h *header) { h.Ack = 0 })},
		{name: "hping, nothing but the port", before: ptr(plain, func(h *header) { h.SrcPort -= 16 }), now: plain, tool: "hping", noRun: true,
			near: near(unDF, options, window, func(h *header) { h.SrcPort++ }, func(h *header) { h.SrcPort -= 16 }, func(h *header) { h.SrcPort -= 17 })},
		{name: "nmap -O, datagram", now: header{Dst: here4, Proto: decode.ProtoUDP, SrcPort: 40000, DstPort: 31000, PayloadLen: 300, IPID: 4162, TTL: 47}, tool: "nmap", noRun: true,
			near: near(unDF, newID, newTTL, func(h *header) { h.PayloadLen++ })},
		{name: "nmap -O, datagram of the next host", now: header{Dst: here4, Proto: decode.ProtoUDP, SrcPort: 40000, DstPort: 31000, PayloadLen: 300, IPID: 4162, TTL: 64}, tool: "nmap", noRun: true},
	}
	for i, p := range []struct {
		flags, window uint16
		options       uint8
		mss           uint16
		df            bool
		ack           uint32
	}{
		{syn, 1, 20, 1460, false, 5}, {syn, 63, 20, 1400, false, 5}, {syn, 4, 20, 640, false, 5},
		{syn, 4, 16, 0, false, 5}, {syn, 16, 20, 536, false, 5}, {syn, 512, 16, 265, false, 5},
		{0, 128, 20, 265, true, 5}, {xmas | syn, 256, 20, 265, false, 5}, {decode.ACK, 1024, 20, 265, true, 5},
		{syn, 31337, 20, 265, false, 5}, {decode.ACK, 32768, 20, 265, true, 5}, {xmas, 65535, 20, 265, false, 5},
	} {
		h := tcp(here4, p.flags, p.window, p.options, p.mss)
		h.DF, h.Ack = p.df, p.ack
		list = append(list, signed{name: fmt.Sprint("nmap -O, probe ", i+1), now: h, tool: "nmap", noRun: true,
			near: near(unDF, options, func(h *header) { h.Window += 7 }, func(h *header) { h.MSS++ }, isUDP)})
	}
	e := tcp(here4, syn|decode.ECE|decode.CWR, 3, 12, 1460)
	e.Urgent = 63477
	return append(list, signed{name: "nmap -O, ECN", now: e, tool: "nmap", noRun: true, near: near(unDF, options, mss, window, func(h *header) { h.Urgent = 0 })})
}

func TestSignatures(t *testing.T) {
	s := load(t)
	named := make(map[string]bool)
	for _, g := range signatures() {
		t.Run(g.name, func(t *testing.T) {
			tool, run := s.Label(g.before, &g.now)
			named[s.Name(tool)] = true
			want := uint64(tool)<<32 | g.run
			if g.noRun {
				want = 0
			}
			if s.Name(tool) != g.tool || run != want {
				t.Fatalf("%q %x, want %q %x", s.Name(tool), run, g.tool, want)
			}
			for name, change := range g.near {
				h := with(g.now, change)
				if tool, _ := s.Label(g.before, &h); s.Name(tool) == g.tool {
					t.Errorf("near miss %s is named too: %+v", name, h)
				}
			}
			// Without what came before, and where it is the same packet sent again.
			if g.before == nil {
				return
			}
			if tool, _ := s.Label(nil, &g.now); s.Name(tool) == g.tool {
				t.Error("named by itself")
			}
			again := g.now
			if tool, _ := s.Label(&again, &g.now); s.Name(tool) == g.tool {
				t.Error("a retransmission is named")
			}
			for _, f := range []func(*header){window, ecn} {
				b := with(*g.before, f)
				if tool, _ := s.Label(&b, &g.now); s.Name(tool) == g.tool {
					t.Errorf("named after a packet of another kind: %+v", b)
				}
			}
		})
	}
	for _, name := range s.names {
		if !named[name] {
			t.Errorf("no test names %s", name)
		}
	}
}

// Each line of the file is what names some packet of TestSignatures: none is
// there for nothing, none is hidden by an earlier one.
func TestEveryLineNames(t *testing.T) {
	s := load(t)
	used := make(map[*signature]bool)
	for _, g := range signatures() {
		for _, line := range s.candidates(&g.now) {
			if line.shapes>>shapeOf(&g.now)&1 != 0 && line.fits(g.before, &g.now) {
				used[line] = true
				break
			}
		}
	}
	all := make(map[*signature]bool)
	for _, list := range append(s.tcp[:], s.udp, s.icmp) {
		for _, line := range list {
			all[line] = true
		}
	}
	for line := range all {
		if !used[line] {
			t.Errorf("a line of %s names nothing: %+v", s.Name(line.tool), line.conds)
		}
	}
}

// Runs of different programs never meet, whatever their numbers.
func TestRunsDoNotMeet(t *testing.T) {
	s := load(t)
	nmap, masscan := tcp(here4, syn, 1024, 4, 1460), with(tcp(here6, syn, 1025, 4, 1460), func(h *header) { h.TTL = 250 })
	nmap.Seq, masscan.SrcPort = 50000, 50000
	_, a := s.Label(nil, &nmap)
	_, b := s.Label(nil, &masscan)
	if a == b || uint32(a) != uint32(b) || a == 0 {
		t.Errorf("runs %x and %x", a, b)
	}
	nmap.Seq = 0x11111111 // whose halves cancel out
	if _, run := s.Label(nil, &nmap); run == 0 {
		t.Error("no run where its number is 0")
	}
}

// Ordinary is the first packet of connections as these systems open them.
func ordinary() map[string]header {
	make4 := func(window uint16, options uint8, mss uint16, df bool, ttl uint8) header {
		h := tcp(here4, syn, window, options, mss)
		h.DF, h.TTL = df, ttl
		return h
	}
	make6 := func(window uint16, options uint8, mss uint16, ttl uint8) header {
		h := tcp(here6, syn, window, options, mss)
		h.TTL, h.IPID = ttl, 0
		return h
	}
	return map[string]header{
		"Linux 5":                   make4(64240, 20, 1460, true, 55),
		"Linux 3":                   make4(29200, 20, 1460, true, 55),
		"Linux, jumbo frames":       make4(62727, 20, 8961, true, 60),
		"Linux, IPv6":               make6(64800, 20, 1440, 55),
		"Android":                   make4(65535, 20, 1460, true, 50),
		"Windows 7":                 make4(8192, 12, 1460, true, 115),
		"Windows 10":                make4(64240, 12, 1460, true, 115),
		"Windows 11":                make4(65535, 12, 1460, true, 115),
		"Windows 11, DF cleared":    make4(65535, 12, 1460, false, 115),
		"Windows XP":                make4(65535, 8, 1460, true, 115),
		"Windows, IPv6":             make6(64800, 12, 1440, 118),
		"macOS":                     make4(65535, 24, 1460, true, 55),
		"macOS, DF cleared":         make4(65535, 24, 1460, false, 55),
		"macOS, IPv6":               make6(65535, 24, 1440, 55),
		"FreeBSD":                   make4(65535, 20, 1460, true, 55),
		"OpenBSD":                   make4(16384, 24, 1460, true, 55),
		"Solaris":                   make4(64240, 16, 1460, true, 245),
		"Cisco IOS":                 make4(4128, 4, 536, false, 245),
		"lwIP":                      make4(5840, 4, 1460, false, 250),
		"uIP, one small buffer":     make4(1024, 4, 1024, false, 60),
		"uIP, 512 bytes":            make4(512, 4, 512, false, 60),
		"printer, window 4096":      make4(4096, 4, 1460, false, 60),
		"window 1024 with options":  make4(1024, 20, 1460, true, 60),
		"IP ID by chance":           with(make4(64240, 20, 1460, true, 55), func(h *header) { h.IPID = 54321 }),
		"IP ID by chance, Windows":  with(make4(65535, 12, 1460, true, 115), func(h *header) { h.IPID = 54321 }),
		"ECN":                       with(make4(64240, 20, 1460, true, 55), ecn),
		"late ACK of Windows":       with(make4(1024, 0, 0, true, 115), func(h *header) { h.Flags, h.Ack = decode.ACK, 9 }),
		"late ACK of Windows, IPv6": with(make6(1024, 0, 0, 115), func(h *header) { h.Flags, h.Ack = decode.ACK, 9 }),
		"late FIN, IPv6":            with(make6(1024, 0, 0, 115), func(h *header) { h.Flags, h.Ack = decode.FIN|decode.ACK, 9 }),
		"DNS":                       {Dst: here4, Proto: decode.ProtoUDP, SrcPort: 50000, DstPort: 53, PayloadLen: 40, IPID: 54321, TTL: 115},
		"NTP":                       {Dst: here4, Proto: decode.ProtoUDP, SrcPort: 123, DstPort: 123, PayloadLen: 48, IPID: 4162, TTL: 50, DF: true},
		"QUIC":                      {Dst: here6, Proto: decode.ProtoUDP, SrcPort: 50000, DstPort: 443, PayloadLen: 1200, TTL: 50},
		"ping":                      {Dst: here4, Proto: decode.ProtoICMP, ICMPType: 8, PayloadLen: 56, IPID: 54321, TTL: 50, DF: true},
		"ping, IPv6":                {Dst: here6, Proto: decode.ProtoICMPv6, ICMPType: 128, PayloadLen: 56, TTL: 50},
		"SCTP":                      {Dst: here4, Proto: decode.ProtoSCTP, SrcPort: 5000, DstPort: 80, TTL: 50},
		"nothing":                   {},
	}
}

// Ordinary systems have no name, whatever they sent before.
func TestOrdinaryStacks(t *testing.T) {
	s := load(t)
	all := ordinary()
	for name, now := range all {
		for earlier, before := range all {
			before.SrcPort--
			if tool, _ := s.Label(&before, &now); tool != 0 {
				t.Errorf("%s after %s is called %s", name, earlier, s.Name(tool))
			}
		}
		if tool, _ := s.Label(nil, &now); tool != 0 {
			t.Errorf("%s is called %s", name, s.Name(tool))
		}
	}
}

// What the file says of chance: of connections with numbers drawn at random none is
// named, of 20,000 of each system.
func TestOrdinaryNumbers(t *testing.T) {
	s := load(t)
	rng := rand.New(rand.NewPCG(1, 2))
	all := ordinary()
	const rounds = 20_000
	for name, now := range all {
		if now.Proto != decode.ProtoTCP || !now.DF {
			continue // without DF 1 in 65,536 may be
		}
		before := now
		for range rounds {
			now.Seq, now.IPID, now.SrcPort, now.DstPort = rng.Uint32(), rng.Uint32()&0xffff, uint16(rng.Uint32()), uint16(rng.Uint32())
			if tool, _ := s.Label(&before, &now); tool != 0 {
				t.Fatalf("%s is called %s: %+v after %+v", name, s.Name(tool), now, before)
			}
			before = now
		}
	}
}

func TestLabelDoesNotAllocate(t *testing.T) {
	s := load(t)
	for _, g := range signatures() {
		if n := testing.AllocsPerRun(100, func() { s.Label(g.before, &g.now) }); n != 0 {
			t.Errorf("%s: %v allocations", g.name, n)
		}
	}
}

// BenchmarkLabel/plain is the packet path: packets without a name.
func BenchmarkLabel(b *testing.B) {
	s := load(b)
	var plain []header
	for _, h := range ordinary() {
		plain = append(plain, h)
	}
	b.Run("plain", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			s.Label(&plain[i], &plain[i])
			if i++; i == len(plain) {
				i = 0
			}
		}
	})
	for _, name := range []string{"Linux 5", "Windows 11", "macOS", "uIP, one small buffer", "DNS"} {
		h := ordinary()[name]
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s.Label(&h, &h)
			}
		})
	}
	signed := signatures()
	b.Run("named", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			s.Label(signed[i].before, &signed[i].now)
			if i++; i == len(signed) {
				i = 0
			}
		}
	})
}
