package main

import (
	"errors"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"portsentry/internal/pktgen"
)

// xdpPass is XDP_PASS of linux/bpf.h.
const xdpPass = 2

// card joins the two as a switch joins cards. The host gets each frame in a page
// of its own with room in front, as the driver of a card hands it to an XDP
// program or, without one, to the stack. A plain veth has buffers of the sender's
// sockets, which the kernel must copy, frame by frame, for any XDP program: that
// costs many times what a program does, and no card has it.
//
// Between the two stands a namespace that redirects frames by XDP, which is where
// the copy is made, with a program on the host and without.
func card(w *world, scanner, host *pktgen.NS) error {
	middle, err := w.net.NewNS()
	if err != nil {
		return err
	}
	var left, right *pktgen.End
	if w.scanner, left, err = w.net.Link(scanner, middle, scannerAddrs(), nil); err != nil {
		return err
	}
	if w.host, right, err = w.net.Link(host, middle, hostAddrs(), nil); err != nil {
		return err
	}
	for _, c := range []struct{ from, to *pktgen.End }{{left, right}, {right, left}} {
		attached, err := attach(c.from, asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(c.to.Index)),
			asm.Mov.Imm(asm.R2, 0), // no flags
			asm.FnRedirect.Call(),
			asm.Return(),
		})
		if err != nil {
			return err
		}
		w.open = append(w.open, attached)
	}
	return errors.Join(
		w.scanner.Neighbour(w.host), w.host.Neighbour(w.scanner),
		w.scanner.GRO(true), w.host.GRO(true), // else they take no redirected frames
	)
}

// passAll puts an XDP program on the host that does nothing.
func (w *world) passAll() error {
	attached, err := attach(w.host, asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()})
	if err == nil {
		w.open = append(w.open, attached)
	}
	return err
}

// attach puts a program on an interface, in native mode, until what it gives is
// closed.
func attach(e *pktgen.End, program asm.Instructions) (io.Closer, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, Instructions: program, License: "GPL"})
	if err != nil {
		return nil, err
	}
	defer p.Close() // the link holds it
	var l link.Link
	err = e.NS.Do(func() (err error) {
		l, err = link.AttachXDP(link.XDPOptions{Program: p, Interface: e.Index, Flags: link.XDPDriverMode})
		return err
	})
	return l, err
}
