package app

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"portsentry/internal/bpf"
	"portsentry/internal/capture"
	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// strangerReader is the way through user space of what is for no trap.
type strangerReader struct {
	reader
	asked map[question]bool // what the program need not tell again
}

// question is what is neither TCP nor UDP, and is told of once.
type question struct {
	src, dst    netip.Addr
	proto       uint8
	port        uint16
	icmp, chunk uint8
}

func newStrangerReader() *strangerReader {
	none := config.PortSet{}.Bitmap()
	return &strangerReader{reader{new(decode.Decoder), detect.New(detect.Options{
		Rules: detect.Rules{TCP: none, UDP: none}, Host: bareHost{}, Strangers: bareHost{}, Sources: 8,
	})}, make(map[question]bool)}
}

// begun is what becomes of a probe.
type begun struct {
	seen    bool
	probe   decode.Probe
	contact detect.Contact
}

func (r *strangerReader) contact(p *decode.Probe) (a begun) {
	if a.seen = r.detector.Contact(p, &a.contact); a.seen {
		a.probe = *p
	}
	a.probe.Time, a.probe.IfIndex, a.probe.PacketType, a.contact.Time = 0, 0, 0, 0
	return a
}

// asks is what the program remembers of p.
func asks(p *decode.Probe) question {
	return question{p.Src, p.Dst, p.Proto, p.DstPort, p.ICMPType, p.SCTPChunk}
}

// agree is reader.agree for what is for no trap.
func (r *strangerReader) agree(t *testing.T, data []byte, told any) (seen bool) {
	t.Helper()
	var p, strict decode.Probe
	f := &capture.Frame{Data: data, WireLen: len(data), Link: capture.LinkEthernet, ChecksumPartial: true}
	st := r.decode(f, &p)
	var want begun
	if st == decode.Complete {
		want = r.contact(&p)
	}
	f.ChecksumPartial = false
	wrong := r.decode(f, &strict) == decode.Complete && strict.Marks&decode.BadChecksum != 0
	_, headers := shape(data)
	switch told := told.(type) {
	case error:
		t.Errorf("%x: unexpected event %v", data, told)
	case decode.Probe:
		got := r.contact(&told)
		if !got.seen || got != want {
			t.Errorf("%x:\nprogram %+v\ndecode  %d, %+v", data, got, st, want)
		}
		r.asked[asks(&told)] = p.Proto != decode.ProtoTCP && p.Proto != decode.ProtoUDP
		if wrong && headers == 0 && len(data) <= 1500 && told.Proto != decode.ProtoSCTP && !leftToCard(data) {
			t.Errorf("%x: the program did not see that the checksum is wrong", data)
		}
	case *capture.Frame:
		var got begun
		if r.decode(told, &p) == decode.Complete {
			got = r.contact(&p)
		}
		if got != want {
			t.Errorf("%x: of what the program handed over %+v, of the frame %+v", data, got, want)
		}
	case nil:
		if want.seen && ours(data) && !wrong && !r.asked[asks(&p)] {
			t.Errorf("%x: the program is silent, decode says %+v", data, want)
		}
		return false
	}
	return want.seen
}

// TestKernelAgreesOnStrangers: of what begins something at no trap, too, the program
// and decode with detect make the same, of every kind and protocol.
func TestKernelAgreesOnStrangers(t *testing.T) {
	needsRoot(t)
	p := newProgram(t)
	p.closed = true
	var none bpf.Ports
	rules := bpf.Rules{Sense: true, Scans: true, EphemeralFirst: 32768, EphemeralLast: 60999}
	for _, err := range []error{p.sensor.SetTraps(&none, &none), p.sensor.SetRules(rules)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	base := seeds(t)
	const mutants, batch = 20_000, 500
	frames := slices.Clone(base)
	for range mutants {
		frames = append(frames, mutate(rng, base[rng.IntN(len(base))]))
	}
	r := newStrangerReader()
	var kinds [detect.KindWorm + 1]int
	for part := range slices.Chunk(frames, batch) {
		told := make([]bool, len(part))
		for i, b := range part {
			told[i] = p.give(t, b)
		}
		for i, b := range part {
			var v any
			if told[i] {
				v = p.next(t)
			}
			r.agree(t, b, v)
			if probe, ok := v.(decode.Probe); ok {
				kinds[r.contact(&probe).contact.Kind]++
			}
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d frames: %v", len(frames), kinds)
	for _, k := range []detect.Kind{detect.KindSYN, detect.KindFIN, detect.KindNULL, detect.KindOdd, detect.KindUDP, detect.KindEcho, detect.KindINIT, detect.KindProto} {
		if kinds[k] == 0 {
			t.Errorf("none of kind %v", k)
		}
	}
}
