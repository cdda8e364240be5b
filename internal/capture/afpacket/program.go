package afpacket

import "golang.org/x/net/bpf"

// label names a place in a program.
type label int

// program collects instructions with jumps to labels further on; classic BPF
// cannot jump back.
type program struct {
	ins    []bpf.Instruction
	places map[label]int
	jumps  map[int]label // by index of the bpf.Jump in ins
}

func (p *program) emit(ins ...bpf.Instruction) { p.ins = append(p.ins, ins...) }

// mark sets l to the next instruction.
func (p *program) mark(l label) {
	if p.places == nil {
		p.places = make(map[label]int)
	}
	p.places[l] = len(p.ins)
}

func (p *program) jump(l label) {
	if p.jumps == nil {
		p.jumps = make(map[int]label)
	}
	p.jumps[len(p.ins)] = l
	p.emit(bpf.Jump{})
}

// when jumps to l if A compares to val. A port search in between may be longer
// than a conditional jump reaches (maxConditional), hence the second one.
func (p *program) when(test bpf.JumpTest, val uint32, l label) {
	p.emit(bpf.JumpIf{Cond: test, Val: val, SkipFalse: 1})
	p.jump(l)
}

// resolve fills in the jumps and gives the program.
func (p *program) resolve() []bpf.Instruction {
	for at, l := range p.jumps {
		p.ins[at] = bpf.Jump{Skip: uint32(p.places[l] - at - 1)}
	}
	return p.ins
}
