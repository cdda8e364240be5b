package decode

import (
	"slices"
	"testing"
	"time"

	"portsentry/internal/capture"
)

// split4 cuts a segment into IPv4 fragments of size bytes.
func split4(id, size int, seg []byte) []*capture.Frame {
	var out []*capture.Frame
	for off := 0; off < len(seg); off += size {
		end, mf := min(off+size, len(seg)), 0
		if end < len(seg) {
			mf = 0x2000
		}
		out = append(out, net4(v4{proto: 6, id: id, frag: off/8 | mf, payload: seg[off:end]}.bytes()))
	}
	return out
}

// split6 is split4 for IPv6; next is what part begins with.
func split6(id uint32, size int, next uint8, part []byte) []*capture.Frame {
	var out []*capture.Frame
	for off := 0; off < len(part); off += size {
		end := min(off+size, len(part))
		h := fragHdr(next, off, end < len(part), id)
		if off > 0 {
			h[0] = 254 // only the first one's counts
		}
		out = append(out, net6(v6{44, cat(h, part[off:end])}.bytes()))
	}
	return out
}

// one4 is a single IPv4 fragment.
func one4(id, off int, more bool, b []byte) *capture.Frame {
	frag := off / 8
	if more {
		frag |= 0x2000
	}
	return net4(v4{proto: 6, id: id, frag: frag, payload: b}.bytes())
}

func one6(id uint32, off int, more bool, b []byte) *capture.Frame {
	return net6(v6{44, cat(fragHdr(6, off, more, id), b)}.bytes())
}

// feed decodes frames in turn. It returns the Probe of the only Complete, or
// -1 if there was none.
func feed(t *testing.T, d *Decoder, frames ...*capture.Frame) (found Probe, at int) {
	t.Helper()
	at = -1
	for i, f := range frames {
		var p Probe
		switch st := d.Decode(f, &p); {
		case st == Complete && at >= 0:
			t.Errorf("frame %d: Complete again, after frame %d", i, at)
		case st == Complete:
			found, at = p, i
		case st != Fragment:
			t.Errorf("frame %d: status %d", i, st)
		}
	}
	return found, at
}

func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var out [][]int
	for _, p := range permutations(n - 1) {
		for i := range n {
			out = append(out, slices.Insert(slices.Clone(p), i, n-1))
		}
	}
	return out
}

// The fragments of a SYN with 4, 20 or 40 bytes of options, in every size and
// every order: Complete once, with the fragment that makes the header whole.
func TestFragmentOrders(t *testing.T) {
	for _, options := range []int{4, 20, 40} {
		opts := cat(mss1460, repeat([]byte{1}, options-4))
		seg := tcpSeg(40000, 11, SYN, opts, []byte("data"))
		for _, size := range []int{8, 16, 24, 32, 40} {
			for _, v6 := range []bool{false, true} {
				fs := split4(1, size, seg)
				marks := Fragmented
				if v6 {
					fs = split6(1, size, 6, seg)
					marks |= HasExtHeaders
				}
				if size < 20 {
					marks |= TinyFragment
				}
				if len(fs) == 1 {
					continue
				}
				if len(fs) > 5 { // every order of eight is too much; the rest in order
					fs = []*capture.Frame{fs[0], fs[1], fs[2], fs[3], fs[len(fs)-1]}
				}
				checkOrders(t, fs, size, len(seg), marks)
			}
		}
	}
}

func checkOrders(t *testing.T, fs []*capture.Frame, size, segLen int, marks Marks) {
	t.Helper()
	whole := len(fs)*size >= segLen
	needed := (tcpLen + size - 1) / size // the first this many
	for _, order := range permutations(len(fs)) {
		d := empty()
		var in []*capture.Frame
		want, left := -1, needed
		for at, i := range order {
			in = append(in, fs[i])
			if i < needed {
				if left--; left == 0 {
					want = at
				}
			}
		}
		p, at := feed(t, d, in...)
		if at != want {
			t.Fatalf("size %d, order %v: Complete with frame %d, want %d", size, order, at, want)
		}
		if p.SrcPort != 40000 || p.DstPort != 11 || p.Flags != SYN || p.MSS != 1460 || p.Proto != 6 ||
			p.Marks != marks || p.IPID != 1 {
			t.Fatalf("size %d, order %v: %+v", size, order, p)
		}
		if at == len(fs)-1 && whole && p.PayloadLen != 4 {
			t.Errorf("size %d, order %v: payload %d", size, order, p.PayloadLen)
		}
		if whole && slices.Max(d.frags.tags[:]) != 0 {
			t.Errorf("size %d, order %v: not forgotten when all had come", size, order)
		}
	}
}

// Frames that nmap 7.93 sent through a veth pair.
func TestFragmentsOfNmap(t *testing.T) {
	rows := []struct {
		name   string
		frames []string
		flags  uint16
		mss    uint16
	}{
		{"-sS -f", []string{
			"4500001cfe54200037065173 0a090001 0a090002 aa38000b7e092fed",
			"4500001cfe54200137065172 0a090001 0a090002 0000000060020400",
			"4500001cfe54000237067171 0a090001 0a090002 27d80000020405b4"}, SYN, 1460},
		{"-sS -f -f", []string{
			"4500002477d220003b06d3ed 0a090001 0a090002 d89f000b5a0032db0000000060020400",
			"4500001c77d200023b06f3f3 0a090001 0a090002 1a8c0000020405b4"}, SYN, 1460},
		{"-sF -f", []string{
			"4500001c9ad420002f06bcf3 0a090001 0a090002 e9ba000b1020be2f",
			"4500001c9ad420012f06bcf2 0a090001 0a090002 0000000050010400",
			"450000189ad400022f06dcf5 0a090001 0a090002 dfb90000"}, FIN, 0},
	}
	d := new(Decoder)
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			var fs []*capture.Frame
			for _, s := range r.frames {
				fs = append(fs, net4(unhex(t, s)))
			}
			p, at := feed(t, d, fs...)
			if at != len(fs)-1 || p.Flags != r.flags || p.DstPort != 11 || p.MSS != r.mss || p.Window != 1024 ||
				p.Marks != Fragmented|TinyFragment {
				t.Errorf("frame %d, %+v", at, p)
			}
		})
	}
}

func TestFragmentsOverlap(t *testing.T) {
	syn := tcpSeg(40000, 11, SYN, mss1460, nil) // 24 bytes
	ack := tcpSeg(40000, 11, ACK, mss1460, nil) // differs in the second unit
	long := cat(syn, make([]byte, 24))          // 48 bytes
	frag := func(off int, more bool, b []byte) [2]*capture.Frame {
		return [2]*capture.Frame{one4(5, off, more, b), one6(5, off, more, b)}
	}
	rows := []struct {
		name  string
		in    [][2]*capture.Frame
		at    int // of the Complete
		flags uint16
		marks Marks
		count uint64 // Stats.Overlaps
	}{
		{"duplicates", [][2]*capture.Frame{frag(0, true, syn[:8]), frag(0, true, syn[:8]), frag(8, true, syn[8:16]), frag(8, true, syn[8:16]), frag(16, false, syn[16:])},
			4, SYN, TinyFragment, 0},
		{"first bytes win", [][2]*capture.Frame{frag(0, true, syn[:8]), frag(8, true, syn[8:16]), frag(8, true, ack[8:16]), frag(16, false, syn[16:])},
			3, SYN, TinyFragment | Overlapping, 1},
		{"first bytes win in any order", [][2]*capture.Frame{frag(8, true, ack[8:16]), frag(8, true, syn[8:16]), frag(16, false, syn[16:]), frag(0, true, syn[:8])},
			3, ACK, TinyFragment | Overlapping, 1},
		{"reaching into what came", [][2]*capture.Frame{frag(0, true, syn[:16]), frag(8, false, ack[8:])},
			-1, 0, 0, 1},
		{"and once more from the start", [][2]*capture.Frame{frag(0, true, ack[:16]), frag(8, false, ack[8:]),
			frag(0, true, syn[:8]), frag(8, true, syn[8:16]), frag(16, false, syn[16:])},
			4, SYN, TinyFragment | Overlapping, 1},
		{"rest of one that was dropped", [][2]*capture.Frame{frag(0, true, syn[:8]), frag(0, true, ack[:16]), frag(8, true, ack[8:16]), frag(16, false, ack[16:])},
			-1, 0, 0, 1},
		{"second end below the first", [][2]*capture.Frame{frag(16, false, syn[16:]), frag(8, false, syn[8:12]), frag(8, true, syn[8:16])},
			-1, 0, 0, 1},
		{"beyond the end", [][2]*capture.Frame{frag(16, false, syn[16:]), frag(24, true, syn[:8]), frag(0, true, syn[:8]), frag(8, true, syn[8:16])},
			-1, 0, 0, 1},
		{"empty", [][2]*capture.Frame{frag(0, true, syn[:16]), frag(16, true, nil), frag(16, false, syn[16:])},
			-1, 0, 0, 1},
		{"whole header first, the rest is of no interest", [][2]*capture.Frame{frag(0, true, long[:24]), frag(0, true, long[:24]), frag(24, true, long[24:32]), frag(32, false, long[32:])},
			0, SYN, 0, 0},
		{"whole header first, duplicate last", [][2]*capture.Frame{frag(0, true, long[:24]), frag(24, true, long[24:32]), frag(0, true, syn)},
			0, SYN, 0, 0},
	}
	for _, r := range rows {
		for family, name := range []string{"IPv4", "IPv6"} {
			t.Run(name+" "+r.name, func(t *testing.T) {
				d := new(Decoder)
				var in []*capture.Frame
				for _, f := range r.in {
					in = append(in, f[family])
				}
				p, at := feed(t, d, in...)
				if at != r.at || p.Flags != r.flags {
					t.Errorf("Complete with frame %d, flags %#x; want %d, %#x", at, p.Flags, r.at, r.flags)
				}
				if at >= 0 && p.Marks&^HasExtHeaders != r.marks|Fragmented {
					t.Errorf("marks %#x, want %#x", p.Marks, r.marks|Fragmented)
				}
				if s := d.Stats(); s.Overlaps != r.count || s.Fragments != uint64(len(in)) {
					t.Errorf("%+v, want %d overlaps", s, r.count)
				}
			})
		}
	}
}

func TestFragmentsAreOfOneDatagram(t *testing.T) {
	syn := tcpSeg(40000, 11, SYN, mss1460, nil)
	first, rest := one4(5, 0, true, syn[:16]), one4(5, 16, false, syn[16:])
	change := func(f *capture.Frame, at int, v byte) *capture.Frame {
		g := *f
		g.Data = with(f.Data, at, v)
		g.Data[10], g.Data[11] = 0, 0
		c := slowSum(g.Data[:20])
		g.Data[10], g.Data[11] = byte(c>>8), byte(c)
		return &g
	}
	for name, other := range map[string]*capture.Frame{
		"source":       change(rest, 15, 1),
		"destination":  change(rest, 19, 1),
		"id":           change(rest, 5, 1),
		"protocol":     change(rest, 9, 17),
		"bad checksum": {Time: 1, Data: with(rest.Data, 10, 1, 1), Link: capture.LinkNetwork, EtherType: etherIPv4},
	} {
		d := new(Decoder)
		if _, at := feed(t, d, first, other); at >= 0 {
			t.Errorf("joined with a fragment of another %s", name)
		}
		if _, at := feed(t, d, rest); at != 0 {
			t.Errorf("not whole after a fragment of another %s", name)
		}
	}
	if _, at := feed(t, new(Decoder), one4(5, 0, true, syn[:16]), one6(5, 16, false, syn[16:])); at >= 0 {
		t.Error("families joined")
	}
}

// Fragments whose IP checksum is wrong make a datagram of their own, marked.
func TestFragmentsWithBadIPChecksum(t *testing.T) {
	fs := split4(5, 8, tcpSeg(1, 11, SYN, mss1460, nil))
	for _, f := range fs {
		f.Data[10] ^= 0x55
	}
	if p, at := feed(t, new(Decoder), fs...); at != 2 || p.Marks != Fragmented|TinyFragment|BadIPChecksum {
		t.Errorf("frame %d, marks %#x", at, p.Marks)
	}
}

// A scanner may use one identification for all its packets.
func TestIdentificationUsedAgain(t *testing.T) {
	d := new(Decoder)
	for port := 1; port < 1000; port++ {
		fs := split4(54321, 8, tcpSeg(40000, port, SYN, mss1460, nil))
		if port%2 == 0 {
			slices.Reverse(fs)
		}
		if p, at := feed(t, d, fs...); at != 2 || int(p.DstPort) != port {
			t.Fatalf("port %d: frame %d, port %d", port, at, p.DstPort)
		}
	}
	if s := d.Stats(); s.Evicted+s.Expired+s.Overlaps != 0 {
		t.Errorf("%+v", s)
	}
}

func TestFragmentsWaitAsLongAsTheHost(t *testing.T) {
	syn := tcpSeg(40000, 11, SYN, mss1460, nil)
	at := func(f *capture.Frame, d time.Duration) *capture.Frame {
		g := *f
		g.Time = 1 + int64(d)
		return &g
	}
	const s = time.Second
	rows := []struct {
		name          string
		first, second *capture.Frame
		want          int
		expired       uint64
	}{
		{"IPv4 30 s", one4(5, 0, true, syn[:16]), at(one4(5, 16, false, syn[16:]), 30*s), 1, 0},
		{"IPv4 later", one4(5, 0, true, syn[:16]), at(one4(5, 16, false, syn[16:]), 30*s+1), -1, 1},
		{"IPv4 back in time", at(one4(5, 0, true, syn[:16]), 31*s), at(one4(5, 16, false, syn[16:]), 0), -1, 1},
		{"IPv6 60 s", one6(5, 0, true, syn[:16]), at(one6(5, 16, false, syn[16:]), 60*s), 1, 0},
		{"IPv6 later", one6(5, 0, true, syn[:16]), at(one6(5, 16, false, syn[16:]), 60*s+1), -1, 1},
	}
	for _, r := range rows {
		d := new(Decoder)
		if _, got := feed(t, d, r.first, r.second); got != r.want || d.Stats().Expired != r.expired {
			t.Errorf("%s: frame %d, %+v", r.name, got, d.Stats())
		}
	}
}

// Far more datagrams than slots: nothing grows, the newest are kept, and every
// loss is counted.
func TestFragmentFlood(t *testing.T) {
	d := new(Decoder)
	syn := tcpSeg(40000, 11, SYN, mss1460, nil)
	const n = 50 * fragSlots
	for id := range n {
		feed(t, d, one4(id, 0, true, syn[:16]))
	}
	if s := d.Stats(); s.Evicted != n-fragSlots || s.Fragments != n || s.Expired != 0 {
		t.Errorf("%+v", s)
	}
	for id := n - fragSlots; id < n; id++ {
		if _, at := feed(t, d, one4(id, 16, false, syn[16:])); at != 0 {
			t.Fatalf("datagram %d lost", id)
		}
	}
	if slices.Max(d.frags.tags[:]) != 0 {
		t.Error("slots left taken")
	}
}

// A first fragment with the whole header is answered whatever came before,
// unless it says the same.
func TestFirstFragmentsContradict(t *testing.T) {
	syn, ack := tcpSeg(40000, 11, SYN, mss1460, nil), tcpSeg(40000, 11, ACK, mss1460, nil)
	for _, in := range [][]*capture.Frame{
		{one4(5, 0, true, ack), one4(5, 0, true, ack), one4(5, 0, true, syn), one4(5, 0, true, syn), one4(5, 24, false, syn)},
		{one6(5, 0, true, ack), one6(5, 0, true, ack), one6(5, 0, true, syn), one6(5, 0, true, syn), one6(5, 24, false, syn)},
	} {
		d := new(Decoder)
		for i, want := range []struct {
			st    Status
			flags uint16
			marks Marks
		}{{Complete, ACK, Fragmented}, {Fragment, 0, 0}, {Complete, SYN, Fragmented | Overlapping}, {Fragment, 0, 0}, {Fragment, 0, 0}} {
			var p Probe
			if st := d.Decode(in[i], &p); st != want.st || p.Flags != want.flags || p.Marks&^HasExtHeaders != want.marks {
				t.Errorf("frame %d: status %d, %+v", i, st, p)
			}
		}
	}
	// A tiny one first, which Linux ignores in IPv6, then a real one.
	p, at := feed(t, new(Decoder), one6(5, 0, true, ack[:8]), one6(5, 0, true, syn), one6(5, 24, false, syn))
	if at != 1 || p.Flags != SYN || p.Marks&Overlapping == 0 {
		t.Errorf("frame %d, %+v", at, p)
	}
}

// snapped is a frame of which less was captured than was on the wire.
func snapped(b []byte) *capture.Frame {
	f := net4(b)
	f.WireLen = 1500
	return f
}

func TestFragmentOdds(t *testing.T) {
	syn := tcpSeg(40000, 11, SYN, mss1460, nil)
	synOpt := v4{proto: 6, id: 5, frag: 0x2000, opts: []byte{7, 3, 4, 0}, payload: syn[:16]}.bytes()
	udp := udpSeg(1, 69, make([]byte, 64))
	rows := []struct {
		name string
		in   []*capture.Frame
		want []Status
		is   func(p *Probe) bool // of the last frame
	}{
		{"beyond 65535", []*capture.Frame{one4(5, 65528, false, make([]byte, 8))}, []Status{Malformed}, nil},
		{"up to 65535", []*capture.Frame{one4(5, 65528, false, make([]byte, 7))}, []Status{Fragment}, nil},
		{"IPv6 beyond 65535", []*capture.Frame{one6(5, 65528, false, make([]byte, 8))}, []Status{Malformed}, nil},
		{"IPv6 odd length", []*capture.Frame{one6(5, 0, true, syn[:20])}, []Status{Malformed}, nil},
		{"IPv4 odd length is cut", []*capture.Frame{one4(5, 0, true, syn[:20]), one4(5, 16, false, syn[16:])}, []Status{Fragment, Complete},
			func(p *Probe) bool { return p.MSS == 1460 && p.Marks&TinyFragment != 0 }},
		{"IPv4 odd length below 8", []*capture.Frame{one4(5, 0, true, syn[:7])}, []Status{Fragment}, nil},
		{"ends inside TCP", []*capture.Frame{one4(5, 0, true, syn[:8]), one4(5, 8, false, syn[8:19])}, []Status{Fragment, Truncated}, nil},
		{"ends inside TCP options", []*capture.Frame{one4(5, 0, true, syn[:8]), one4(5, 8, false, syn[8:22])}, []Status{Fragment, Complete},
			func(p *Probe) bool { return p.Flags == SYN && p.Marks&BadLength != 0 && p.MSS == 0 }},
		{"data offset 1", []*capture.Frame{one4(5, 0, true, with(syn, 12, 0x10)), one4(5, 24, false, syn)}, []Status{Complete, Fragment}, nil},
		{"IP options of the first", []*capture.Frame{net4(synOpt), one4(5, 16, false, syn[16:])}, []Status{Fragment, Complete},
			func(p *Probe) bool { return p.IPOptions == Yes }},
		{"captured short, header there", []*capture.Frame{snapped(v4{proto: 6, id: 5, frag: 0x2000, payload: syn, total: 1500}.bytes())}, []Status{Complete},
			func(p *Probe) bool { return p.Marks == Fragmented|ShortPayload && p.MSS == 1460 }},
		{"captured short, header not there", []*capture.Frame{snapped(v4{proto: 6, id: 5, frag: 0x2000, payload: syn[:19], total: 1500}.bytes())}, []Status{Truncated}, nil},
		{"captured to the IP header", []*capture.Frame{snapped(v4{proto: 6, id: 5, frag: 0x2000, total: 1500}.bytes())}, []Status{Truncated}, nil},
		{"shorter than it says, which no host takes", []*capture.Frame{one4(5, 0, true, syn[:8]), net4(v4{proto: 6, id: 5, frag: 0x2001, total: 36}.bytes()), one4(5, 8, false, syn[8:])},
			[]Status{Fragment, Truncated, Complete}, func(p *Probe) bool { return p.Flags == SYN && p.Marks == Fragmented|TinyFragment }},
		{"UDP", []*capture.Frame{net4(v4{proto: 17, id: 5, frag: 0x2000, payload: udp[:32]}.bytes()), net4(v4{proto: 17, id: 5, frag: 4, payload: udp[32:]}.bytes())},
			[]Status{Complete, Fragment}, nil},
		{"UDP backwards", []*capture.Frame{net4(v4{proto: 17, id: 5, frag: 4, payload: udp[32:]}.bytes()), net4(v4{proto: 17, id: 5, frag: 0x2000, payload: udp[:32]}.bytes())},
			[]Status{Fragment, Complete}, func(p *Probe) bool { return p.DstPort == 69 && p.PayloadLen == 64 && p.Marks == Fragmented }},
		{"GRE", []*capture.Frame{net4(v4{proto: 47, id: 5, frag: 0x2000, payload: udp[:8]}.bytes())}, []Status{Complete},
			func(p *Probe) bool { return p.Proto == 47 && p.Marks == Fragmented }},
		{"IPv6 headers behind the fragment header", split6(5, 24, 60, cat(ext(6, 16), syn)), []Status{Fragment, Complete},
			func(p *Probe) bool { return p.DstPort == 11 && p.Proto == 6 && p.Marks&TinyFragment != 0 }},
		{"IPv6 headers over several fragments", split6(5, 8, 60, cat(ext(60, 16), ext(6, 8), syn)), []Status{Fragment, Fragment, Fragment, Fragment, Fragment, Complete},
			func(p *Probe) bool { return p.DstPort == 11 && p.MSS == 1460 }},
		{"IPv6 long headers, whole in the first", split6(5, 1200, 60, cat(ext(6, 1024), syn, make([]byte, 400))), []Status{Complete, Fragment}, nil},
		{"IPv6 long headers, not whole: hosts discard it", split6(5, 600, 60, cat(ext(6, 1024), syn)), []Status{Fragment, Truncated}, nil},
		{"IPv6 ESP", split6(5, 16, 50, syn), []Status{Unknown, Fragment}, nil},
		{"IPv6 hop-by-hop behind the fragment header", split6(5, 16, 0, cat(ext(6, 8), syn)), []Status{Malformed, Fragment}, nil},
		{"IPv6 fragment header inside", split6(5, 16, 44, cat(fragHdr(6, 0, false, 1), syn)), []Status{Malformed, Fragment}, nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			d := new(Decoder)
			if len(r.in) != len(r.want) {
				t.Fatalf("%d frames, %d answers", len(r.in), len(r.want))
			}
			var p Probe
			for i, f := range r.in {
				if st := d.Decode(f, &p); st != r.want[i] {
					t.Fatalf("frame %d: status %d, want %d", i, st, r.want[i])
				}
			}
			if r.is != nil && !r.is(&p) {
				t.Errorf("%+v", p)
			}
		})
	}
}
