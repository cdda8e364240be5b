package afpacket

import (
	"slices"

	"golang.org/x/net/bpf"

	"portsentry/internal/config"
)

// leafRanges is how many ranges the end of a search compares one by one. More
// makes the program shorter and the search longer.
const leafRanges = 8

// maxConditional is how far a conditional jump reaches.
const maxConditional = 255

// search looks for A in set and returns from the program: snapHeaders when A
// is there, 0 when not. It is a binary search written out as jumps, about 1.4
// instructions for a single port and 2.4 for a range.
func search(set config.PortSet) []bpf.Instruction {
	if len(set) <= leafRanges {
		return searchLeaf(set)
	}
	mid := searchMiddle(set)
	left, right := search(set[:mid]), search(set[mid:])
	first := uint32(set[mid].First)
	ins := make([]bpf.Instruction, 0, 2+len(left)+len(right))
	if len(left) <= maxConditional {
		ins = append(ins, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: first, SkipTrue: uint8(len(left))})
	} else {
		ins = append(ins,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: first, SkipFalse: 1},
			bpf.Jump{Skip: uint32(len(left))})
	}
	return append(append(ins, left...), right...)
}

// searchMiddle splits where the left half has full leaves, which are cheapest.
func searchMiddle(set config.PortSet) int {
	return (len(set)/leafRanges + 1) / 2 * leafRanges
}

// searchLen is the length of search(set), without making it.
func searchLen(set config.PortSet) int {
	if len(set) > leafRanges {
		mid := searchMiddle(set)
		left, right := searchLen(set[:mid]), searchLen(set[mid:])
		if left <= maxConditional {
			return 1 + left + right
		}
		return 2 + left + right
	}
	n := 2
	for _, r := range set {
		n++
		if r.First != r.Last {
			n++
		}
	}
	return n
}

func searchLeaf(set config.PortSet) []bpf.Instruction {
	n := searchLen(set) - 2 // instructions before the two returns: no, then yes
	ins := make([]bpf.Instruction, 0, n+2)
	no := func() uint8 { return uint8(n - len(ins) - 1) }
	yes := func() uint8 { return no() + 1 }
	for _, r := range set {
		if r.First == r.Last {
			ins = append(ins, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(r.First), SkipTrue: yes()})
			continue
		}
		ins = append(ins, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(r.First), SkipTrue: no()})
		ins = append(ins, bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: uint32(r.Last), SkipTrue: yes()})
	}
	return append(ins, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: snapHeaders})
}

// coarsen gives a set of three quarters of the ranges that holds all ports of
// set: those nearest to each other are joined. It needs two ranges or more.
func coarsen(set config.PortSet) config.PortSet {
	gaps := make([]int, len(set)-1)
	for i := range gaps {
		gaps[i] = int(set[i+1].First) - int(set[i].Last)
	}
	slices.Sort(gaps)
	closing := (len(set) + 3) / 4
	widest := gaps[closing-1]
	narrower, _ := slices.BinarySearch(gaps, widest)
	ties := closing - narrower // how many of the widest are closed
	out := config.PortSet{set[0]}
	for _, r := range set[1:] {
		last := &out[len(out)-1]
		gap := int(r.First) - int(last.Last)
		if gap == widest && ties > 0 {
			ties--
			last.Last = r.Last
		} else if gap < widest {
			last.Last = r.Last
		} else {
			out = append(out, r)
		}
	}
	return out
}
