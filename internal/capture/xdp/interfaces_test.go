package xdp

import (
	"errors"
	"os/exec"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

// Interfaces appear and go while the workers run.
func TestSetInterfaces(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, logOnly)
	c := collect(t, r.source, nil)
	near, far, err := r.net.Link(r.scanner.NS, r.host.NS, prefixes("10.9.0.2/24"), prefixes("10.9.0.1/24"))
	r.must(err)
	r.must(near.StaticNeighbours())
	sender, err := near.Sender()
	r.must(err)
	defer sender.Close()
	p := r.syn4()
	p.Src = near.Addr4()
	probe := func() {
		t.Helper()
		r.must(sender.SendPacket(p))
		r.send(r.syn4()) // comes after it
	}

	probe()
	got, _ := c.take(1, 0)
	if len(got) != 1 || got[0].Src == p.Src {
		t.Errorf("not watched: %+v", got)
	}
	for range 2 {
		if errs := r.attach(false, r.host.Index, far.Index); len(errs) > 0 {
			t.Fatal(errs)
		}
	}
	r.must(sender.SendPacket(p))
	got, _ = c.take(1, 0)
	if len(got) != 1 || got[0].Src != p.Src || got[0].IfIndex != int32(far.Index) {
		t.Errorf("watched: %+v", got)
	}
	if out, err := exec.Command("ip", "-n", r.host.NS.Name(), "link", "del", far.Name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if errs := r.attach(false, r.host.Index); len(errs) > 0 {
		t.Error(errs)
	}
	errs := r.attach(false, r.host.Index, far.Index)
	if len(errs) != 1 || errs[int32(far.Index)] == nil {
		t.Errorf("an interface that is gone: %v", errs)
	}
	if errs := r.attach(false); len(errs) > 0 || len(interfaces(r)) > 0 {
		t.Errorf("%v, on %v", errs, interfaces(r))
	}
}

// A driver that cannot run the program, as the loopback's, and another program.
func TestRefused(t *testing.T) {
	const lo = 1
	r := newRig(t, bpf.SensorOptions{}, logOnly)
	if errs := r.attach(false, lo, r.host.Index); len(errs) != 1 || !errors.Is(errs[lo], bpf.ErrNoNative) {
		t.Errorf("native: %v", errs)
	}
	if errs := r.attach(true, lo, r.host.Index); len(errs) != 0 {
		t.Errorf("generic: %v", errs)
	}
	if on := r.sensor.Attached(); len(on) != 2 || !on[lo] || on[int32(r.host.Index)] {
		t.Errorf("interfaces, and which are generic: %v", on)
	}
	if errs := r.attach(false, lo, r.host.Index); len(errs) != 1 || !errors.Is(errs[lo], bpf.ErrNoNative) {
		t.Errorf("native again: %v", errs)
	}
	if !slices.Equal(interfaces(r), []int32{int32(r.host.Index)}) {
		t.Errorf("on %v", interfaces(r))
	}

	if errs := r.attach(false); len(errs) > 0 {
		t.Fatal(errs)
	}
	theirs := occupy(r, r.host)
	for _, generic := range []bool{false, true} {
		if errs := r.attach(generic, r.host.Index); len(errs) != 1 || !errors.Is(errs[int32(r.host.Index)], bpf.ErrOccupied) {
			t.Errorf("generic %v: %v", generic, errs)
		}
	}
	info, err := theirs.Info()
	r.must(err)
	if info.XDP().Ifindex != uint32(r.host.Index) {
		t.Error("the other program is gone")
	}
	r.must(theirs.Close())
	eventually(t, "its room", func() bool { return len(r.attach(false, r.host.Index)) == 0 })
}

// occupy puts a program on e that passes everything.
func occupy(r *rig, e *pktgen.End) (l link.Link) {
	r.t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "BSD", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	r.must(err)
	defer prog.Close()
	r.must(e.NS.Do(func() (err error) {
		l, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: e.Index, Flags: link.XDPDriverMode})
		return err
	}))
	return l
}
