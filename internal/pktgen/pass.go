package pktgen

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
)

// passXDP is XDP_PASS of linux/bpf.h.
const passXDP = 2

// TakeReturned has e take in what an XDP program on the other end sends back with
// XDP_TX: for that a veth end needs a program of its own, here one that lets
// everything pass. It stays as long as the interface.
func (e *End) TakeReturned() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "BSD",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, passXDP), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("pktgen: XDP program: %w", err)
	}
	defer p.Close()
	err = e.NS.Do(func() error {
		link, err := netlink.LinkByIndex(e.Index)
		if err != nil {
			return err
		}
		return netlink.LinkSetXdpFd(link, p.FD())
	})
	if err != nil {
		return fmt.Errorf("pktgen: XDP program on %s: %w", e.Name, err)
	}
	return nil
}
