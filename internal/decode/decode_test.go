package decode

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"portsentry/internal/capture"
)

// frames are all packets of the tables, each as a frame.
func frames() map[string]*capture.Frame {
	all := map[string]*capture.Frame{}
	for _, rows := range [][]packet{ipv4Packets(), ipv6Packets(), transportPackets()} {
		for _, r := range rows {
			all[r.name] = r.frame()
		}
	}
	for _, r := range linkRows {
		b := cat(r.hdr, syn4())
		if r.v6 {
			b = cat(r.hdr, syn6())
		}
		all[r.name] = &capture.Frame{Data: b, WireLen: len(b), Link: r.link}
	}
	return all
}

// same reports whether two Probes say the same of a packet, but for what may
// lie behind the fixed transport header.
func same(a, b Probe) bool {
	for _, p := range []*Probe{&a, &b} {
		p.Marks &^= ShortPayload | BadChecksum | BadLength
		p.PayloadLen, p.MSS, p.SCTPChunk = 0, 0, 0
	}
	return a == b
}

// Cut at every length, each packet gives what the whole one gives or nothing,
// and never looks at what lies behind the cut.
func TestTruncated(t *testing.T) {
	var full, p, q Probe
	for name, f := range frames() {
		st := empty().Decode(f, &full)
		for n := range f.Data {
			zeros, ones := make([]byte, len(f.Data)+64), make([]byte, len(f.Data)+64)
			copy(zeros, f.Data[:n])
			for i := copy(ones, f.Data[:n]); i < len(ones); i++ {
				ones[i] = 0xff
			}
			a, b := *f, *f
			a.Data, b.Data = zeros[:n], ones[:n]
			sa, sb := empty().Decode(&a, &p), empty().Decode(&b, &q)
			if sa != sb || p != q {
				t.Fatalf("%s cut to %d: depends on bytes beyond: %d %+v, %d %+v", name, n, sa, p, sb, q)
			}
			if sa == Complete && (st != Complete || !same(p, full)) {
				t.Errorf("%s cut to %d: %+v, whole %d %+v", name, n, p, st, full)
			}
		}
	}
}

// Cut inside its fixed transport header, no packet is Complete; cut behind it,
// it is, and marked.
func TestTruncatedWhere(t *testing.T) {
	rows := []struct {
		name   string
		f      *capture.Frame
		ip, to int // header of IP and end of the fixed transport header
	}{
		{"TCP", net4(syn4()), 20, 40},
		{"TCP/IPv6", net6(syn6()), 40, 60},
		{"UDP", net4(v4{proto: 17, payload: sum4(17, 6, udpSeg(1, 2, []byte("data")))}.bytes()), 20, 28},
		{"ICMP", net4(v4{proto: 1, payload: sumAt(nil, 2, make([]byte, 12))}.bytes()), 20, 28},
		{"SCTP", net4(v4{proto: 132, payload: sctpSeg(1, 2, 1)}.bytes()), 20, 32},
		{"behind extension headers", net6(v6{0, cat(ext(60, 8), ext(6, 16), sum6(6, 16, tcpSeg(1, 2, SYN, mss1460, nil)))}.bytes()), 40, 84},
	}
	for _, r := range rows {
		for n := range r.f.Data {
			f := *r.f
			f.Data = f.Data[:n]
			p, st := decodeOne(&f)
			switch {
			case n < r.to && st != Truncated:
				t.Errorf("%s cut to %d: status %d", r.name, n, st)
			case n >= r.to && (st != Complete || p.Marks&ShortPayload == 0 || p.Marks&BadChecksum != 0):
				t.Errorf("%s cut to %d: status %d, marks %#x", r.name, n, st, p.Marks)
			}
		}
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	var p Probe
	d := new(Decoder)
	for name, f := range frames() {
		if n := testing.AllocsPerRun(20, func() { d.Decode(f, &p) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	var fs []*capture.Frame // more datagrams than there are slots, every other one never whole
	for id := range 3 * fragSlots {
		seg := sum4(6, 16, tcpSeg(1, 11, SYN, mss1460, nil))
		fs = append(fs, split4(id, 8, seg)[:2+id%2]...)
		fs = append(fs, split6(uint32(id), 8, 6, seg)[:2+id%2]...)
	}
	i := 0
	if n := testing.AllocsPerRun(2*len(fs), func() {
		d.Decode(fs[i%len(fs)], &p)
		i++
	}); n != 0 {
		t.Errorf("fragments: %v allocations", n)
	}
	if s := d.Stats(); s.Evicted == 0 {
		t.Errorf("nothing pushed out: %+v", s)
	}
}

var update = flag.Bool("update", false, "write testdata/frames.txt anew")

// testdata/frames.txt has the packets of this package's tests as Ethernet frames,
// in hexadecimal digits, for the tests of others who read packets.
func TestFramesFile(t *testing.T) {
	const file = "testdata/frames.txt"
	var want []byte
	all := frames()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := all[name]
		switch f.Link {
		case capture.LinkEthernet:
			want = fmt.Appendf(want, "%x\n", f.Data)
		case capture.LinkNetwork:
			want = fmt.Appendf(want, "%x\n", cat(macs, u16(int(f.EtherType)), f.Data))
		}
	}
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the tests have (%v): run with -update", file, err)
	}
}
