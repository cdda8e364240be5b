package decode

import (
	"testing"

	"portsentry/internal/capture"
)

func benchmarkDecode(b *testing.B, want Status, fs ...*capture.Frame) {
	d, p := new(Decoder), new(Probe)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		f := fs[i]
		if i++; i == len(fs) {
			i = 0
			if st := d.Decode(f, p); st != want {
				b.Fatalf("status %d", st)
			}
			continue
		}
		d.Decode(f, p)
	}
}

func BenchmarkDecodeSYN4(b *testing.B) { benchmarkDecode(b, Complete, net4(syn4())) }
func BenchmarkDecodeSYN6(b *testing.B) { benchmarkDecode(b, Complete, net6(syn6())) }

func BenchmarkDecodeFullSize(b *testing.B) {
	benchmarkDecode(b, Complete, net4(v4{proto: 6, payload: sum4(6, 16, tcpSeg(1, 11, PSH|ACK, nil, make([]byte, 1460)))}.bytes()))
}

// One operation is one of the three fragments that nmap -f makes of a SYN.
func BenchmarkDecodeFragments(b *testing.B) {
	benchmarkDecode(b, Complete, split4(7, 8, tcpSeg(40000, 11, SYN, mss1460, nil))...)
}

// One operation is a first fragment that pushes another datagram out of the
// full table.
func BenchmarkDecodeFragmentFlood(b *testing.B) {
	var fs []*capture.Frame
	for id := range 4 * fragSlots {
		fs = append(fs, one4(id, 0, true, make([]byte, 8)))
	}
	benchmarkDecode(b, Fragment, fs...)
}
