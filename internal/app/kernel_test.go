package app

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/capture"
	"portsentry/internal/capture/xdp"
	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// The addresses that the packets of package decode are for.
var home4, home6 = netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("2001:db8:1::9")

// bareHost has these addresses and nothing on any port.
type bareHost struct{}

func (bareHost) Own(a netip.Addr) bool              { return a == home4 || a == home6 }
func (bareHost) Ephemeral(port uint16) bool         { return port >= 32768 && port <= 60999 }
func (bareHost) Use(*decode.Probe, bool) detect.Use { return detect.Free }

// answer is what one of the two ways makes of a frame.
type answer struct {
	seen     bool
	probe    decode.Probe
	sighting detect.Sighting
}

// observe asks a detector that has seen nothing before.
func observe(p *decode.Probe) (a answer) {
	ports := config.PortSet{{First: 0, Last: 65535}}.Bitmap()
	d := detect.New(detect.Options{Rules: detect.Rules{TCP: ports, UDP: ports}, Host: bareHost{}, Sources: 8})
	if a.seen = d.Observe(p, &a.sighting); a.seen {
		a.probe = *p
	}
	// When and where it came in is no question of reading.
	a.probe.Time, a.probe.IfIndex, a.probe.PacketType = 0, 0, 0
	a.sighting.Time, a.sighting.IfIndex = 0, 0
	return a
}

// program is the XDP program in a namespace of its own, run on bytes, and what
// it tells as package capture/xdp hands it out.
type program struct {
	sensor *bpf.Sensor
	run    *ebpf.Program
	told   chan any // decode.Probe of an event, *capture.Frame
	events uint64   // handed to the ring
}

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root: loads an XDP program and makes a network namespace")
	}
}

// newProgram makes every port a trap of a host that serves nothing and only
// tells. The test's goroutine keeps its thread, with which the namespace ends.
func newProgram(t testing.TB) *program {
	t.Helper()
	runtime.LockOSThread()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Unshare(unix.CLONE_NEWNET))
	s, err := bpf.OpenSensor(bpf.SensorOptions{})
	must(err)
	var all bpf.Ports
	for i := range all {
		all[i] = ^uint64(0)
	}
	must(s.SetTraps(&all, &all))
	must(s.SetOwn([]netip.Addr{home4, home6}))
	must(s.SetRules(bpf.Rules{Sense: true, EphemeralFirst: 32768, EphemeralLast: 60999}))
	source, err := xdp.Open(s)
	must(err)
	p := &program{sensor: s, told: make(chan any, 1<<12)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- source.Workers()[0].Run(ctx, func(e *capture.Event) {
			if e.Kind != capture.EventProbe || e.Held || e.Peer || e.Times != 1 {
				t.Errorf("%+v", *e)
			}
			var probe decode.Probe
			probe.FromEvent(e)
			p.told <- probe
		}, func(f *capture.Frame) {
			frame := *f
			frame.Data = slices.Clone(f.Data)
			p.told <- &frame
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, source.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	// The program is the package's own affair; whoever runs it can be asked for it.
	lo, err := netlink.LinkByName("lo")
	must(err)
	must(s.Attach(int32(lo.Attrs().Index), true))
	lo, err = netlink.LinkByName("lo")
	must(err)
	must(s.Detach(int32(lo.Attrs().Index)))
	p.run, err = ebpf.NewProgramFromID(ebpf.ProgramID(lo.Attrs().Xdp.ProgId))
	must(err)
	t.Cleanup(func() { p.run.Close() })
	return p
}

// give runs the program on frame, and reports whether it told of it.
func (p *program) give(t testing.TB, frame []byte) bool {
	t.Helper()
	verdict, err := p.run.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		t.Fatalf("%x: %v", frame, err)
	}
	if verdict != 2 { // XDP_PASS
		t.Errorf("%x: verdict %d", frame, verdict)
	}
	c, err := p.sensor.Tally()
	if err != nil {
		t.Fatal(err)
	}
	n := c.Events - p.events
	if p.events = c.Events; n > 1 || c.Counted > 0 {
		t.Fatalf("%x: %d events, %+v", frame, n, c)
	}
	return n == 1
}

func (p *program) next(t testing.TB) any {
	t.Helper()
	select {
	case v := <-p.told:
		return v
	case <-time.After(5 * time.Second):
		t.Fatal("an event was counted and does not come")
		return nil
	}
}

// agree compares what user space makes of a frame with what the program told of
// it; nil: nothing.
func agree(t testing.TB, d *decode.Decoder, data []byte, told any) (seen bool) {
	t.Helper()
	var p decode.Probe
	f := &capture.Frame{Data: data, WireLen: len(data), Link: capture.LinkEthernet, ChecksumPartial: true}
	st := d.Decode(f, &p)
	var want answer
	if st == decode.Complete {
		want = observe(&p)
	}
	fragment, headers := shape(data)
	switch told := told.(type) {
	case decode.Probe:
		got := observe(&told)
		if !got.seen || got != want {
			t.Errorf("%x:\nprogram %+v\ndecode  %d, %+v", data, got, st, want)
		}
	case *capture.Frame:
		if !fragment && headers <= 6 && !p.Src.Is4In6() {
			t.Errorf("%x: the program left it to user space, decode says %d", data, st)
		}
		var got answer
		if told.WireLen != len(data) || !slices.Equal(told.Data, data[:len(told.Data)]) {
			t.Errorf("%x: the program handed over %d, %x", data, told.WireLen, told.Data)
		}
		if new(decode.Decoder).Decode(told, &p) == decode.Complete {
			got = observe(&p)
		}
		if got != want {
			t.Errorf("%x: of what the program handed over %+v, of the frame %+v", data, got, want)
		}
	case nil:
		if want.seen && !ours(data) {
			return false // PPPoE and 802.3 frames: interfaces of their own, or no IP for Linux
		}
		if want.seen {
			t.Errorf("%x: the program is silent, decode says %+v", data, want)
		}
	}
	return want.seen
}

// network finds the IP header of an Ethernet frame with up to two tags.
func network(b []byte) (etherType uint16, ip []byte) {
	for tags, at := 0, 12; at+2 <= len(b); tags, at = tags+1, at+4 {
		etherType = binary.BigEndian.Uint16(b[at:])
		if tags == 2 || etherType != 0x8100 && etherType != 0x88a8 && etherType != 0x9100 {
			return etherType, b[at+2:]
		}
	}
	return 0, nil
}

// ours reports whether a frame is what the program reads: IP right behind the
// Ethernet header and tags.
func ours(b []byte) bool {
	etherType, _ := network(b)
	return etherType == 0x0800 || etherType == 0x86dd
}

// shape tells a fragment, or what has a fragment header, and counts the
// extension headers of IPv6.
func shape(b []byte) (fragment bool, headers int) {
	etherType, ip := network(b)
	if etherType == 0x0800 {
		return len(ip) >= 8 && binary.BigEndian.Uint16(ip[6:])&0x3fff != 0, 0
	}
	if etherType != 0x86dd || len(ip) < 40 {
		return false, 0
	}
	for next, at := ip[6], 40; ; headers++ {
		switch next {
		case 44:
			return true, headers
		case 0, 43, 51, 60, 135, 139, 140:
		default:
			return false, headers
		}
		if at+8 > len(ip) {
			return false, headers
		}
		size := (int(ip[at+1]) + 1) * 8
		if next == 51 {
			size = (int(ip[at+1]) + 2) * 4
		}
		next, at = ip[at], at+size
	}
}

// seeds are the packets of decode's tests and what its fuzzers found.
func seeds(t testing.TB) (all [][]byte) {
	t.Helper()
	f, err := os.Open("../decode/testdata/frames.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		b, err := hex.DecodeString(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	found, err := filepath.Glob("../decode/testdata/fuzz/FuzzDecode/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, line, _ := strings.Cut(string(b), "[]byte(")
		line, _, _ = strings.Cut(line, ")\n")
		data, err := strconv.Unquote(line)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, []byte(data))
	}
	return slices.DeleteFunc(all, func(b []byte) bool { return len(b) < 14 })
}

// mutate changes bytes of a frame, cuts it or lengthens it. Most IPv4 headers
// get a right checksum again: what is wrong there hides everything else.
func mutate(rng *rand.Rand, seed []byte) []byte {
	b := slices.Clone(seed)
	for range rng.IntN(4) {
		at := 12 + rng.IntN(min(len(b)-12, 90))
		switch rng.IntN(3) {
		case 0:
			b[at] = byte(rng.Uint32())
		case 1:
			b[at] ^= 1 << rng.IntN(8)
		default:
			b[at] = []byte{0, 1, 5, 6, 8, 17, 20, 40, 43, 44, 50, 51, 58, 59, 60, 135, 255}[rng.IntN(17)]
		}
	}
	switch rng.IntN(6) {
	case 0:
		b = b[:14+rng.IntN(len(b)-13)]
	case 1:
		b = append(b, make([]byte, rng.IntN(40))...)
	}
	etherType, ip := network(b)
	if etherType == 0x0800 && len(ip) >= 20 && rng.IntN(8) > 0 {
		if header := ip[:min(len(ip), int(ip[0]&15)*4)]; len(header) >= 20 {
			header[10], header[11] = 0, 0
			var sum uint32
			for i := 0; i+1 < len(header); i += 2 {
				sum += uint32(binary.BigEndian.Uint16(header[i:]))
			}
			sum = sum>>16 + sum&0xffff
			binary.BigEndian.PutUint16(header[10:], ^uint16(sum>>16+sum))
		}
	}
	return b
}

// TestKernelAgrees: the program and decode with detect are two readers of the
// same packets, and give one answer.
func TestKernelAgrees(t *testing.T) {
	needsRoot(t)
	p := newProgram(t)
	rng := rand.New(rand.NewPCG(1, 2))
	base := seeds(t)
	const mutants, batch = 20_000, 500
	frames := slices.Clone(base)
	for range mutants {
		frames = append(frames, mutate(rng, base[rng.IntN(len(base))]))
	}
	d, seen, left := new(decode.Decoder), 0, 0
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
			if _, raw := v.(*capture.Frame); raw {
				left++
			}
			if d.Stats().Fragments > 0 { // each frame on its own
				d = new(decode.Decoder)
			}
			if agree(t, d, b, v) {
				seen++
			}
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d frames, %d sightings, %d left to user space", len(frames), seen, left)
	if seen < mutants/5 || left < mutants/50 {
		t.Errorf("%d sightings and %d left to user space: too few to mean anything", seen, left)
	}
}

// FuzzKernelAgrees is the same for whatever the fuzzer finds.
func FuzzKernelAgrees(f *testing.F) {
	needsRoot(f)
	for _, b := range seeds(f) {
		f.Add(b)
	}
	var p *program // one each process; the workers are processes
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 14 || len(b) > 3000 {
			return // the kernel runs no program on less, and in one piece on no more
		}
		if p == nil {
			p = newProgram(f)
		}
		var v any
		if p.give(t, b) {
			v = p.next(t)
		}
		agree(t, new(decode.Decoder), b, v)
	})
}
