package afpacket

import (
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// spread gives the program that picks the worker of a packet: a hash of the
// source address, which the kernel takes modulo the number of workers. Never
// of the flow: all that a source sends must land at one worker, in order.
//
// Receive hooks get packets that begin at the network header, so plain offsets
// do; unlike the SKF_NET_OFF ones they also reach data that the driver left
// outside of the linear part. What is not IP goes to the first worker.
func spread() ([]bpf.RawInstruction, error) {
	var p program
	p.emit(bpf.LoadExtension{Num: bpf.ExtProto})
	p.spreadByType()
	p.spreadCore()
	raw, err := bpf.Assemble(p.resolve())
	if err != nil {
		return nil, fmt.Errorf("afpacket: assemble fanout program: %w", err)
	}
	return raw, nil
}

// Labels of the fanout program. X: offset of the IP header.
const (
	labelSpread4 label = iota
	labelSpread6
	labelSpreadTagged
	labelSpreadNone
	labelSpreadMix // A: address folded to 32 bits
)

func (p *program) spreadByType() {
	p.emit(bpf.LoadConstant{Dst: bpf.RegX, Val: 0})
	p.when(bpf.JumpEqual, unix.ETH_P_IP, labelSpread4)
	p.when(bpf.JumpEqual, unix.ETH_P_IPV6, labelSpread6)
	p.whenTag(labelSpreadTagged)
	p.jump(labelSpreadNone)
}

func (p *program) spreadCore() {
	p.mark(labelSpreadTagged)
	p.emit(bpf.LoadConstant{Dst: bpf.RegX, Val: tagLen}, bpf.LoadAbsolute{Off: 2, Size: 2})
	p.when(bpf.JumpEqual, unix.ETH_P_IP, labelSpread4)
	p.when(bpf.JumpEqual, unix.ETH_P_IPV6, labelSpread6)
	p.jump(labelSpreadNone)

	p.mark(labelSpread4)
	p.emit(bpf.LoadIndirect{Off: 12, Size: 4})
	p.jump(labelSpreadMix)

	// The /64 decides, as one host has as many addresses in it as it likes.
	p.mark(labelSpread6)
	p.emit(
		bpf.LoadIndirect{Off: 8, Size: 4},
		bpf.StoreScratch{Src: bpf.RegA, N: 0},
		bpf.LoadIndirect{Off: 12, Size: 4},
		bpf.LoadScratch{Dst: bpf.RegX, N: 0},
		bpf.ALUOpX{Op: bpf.ALUOpXor},
	)

	// Knuth's multiplicative hash; the high half is the well-mixed one.
	p.mark(labelSpreadMix)
	p.emit(
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 0x9e3779b1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 16},
		bpf.RetA{},
	)
	p.mark(labelSpreadNone)
	p.emit(bpf.RetConstant{Val: 0})
}
