package bpf

import (
	"bytes"
	"encoding/binary"
	"os"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// What the program asks connection tracking with.
const (
	askTracking = "bpf_xdp_ct_lookup"
	endTracking = "bpf_ct_release"
)

// tracking is what the program has to know of the kernel it runs on to ask that: the
// numbers of two functions among the kernel's types, and where in a struct nf_conn
// its status is.
type tracking struct {
	functions map[string]uint32
	status    int16 // bytes from its beginning
}

// builtinTracking looks for it in the kernel itself; nil: it is in a module, or
// nowhere, which is the library's to find out. That reads and sorts all types of the
// kernel, which takes ten times as long as to pass them once.
func builtinTracking() *tracking {
	types, free, err := kernelTypes()
	if err != nil {
		return nil
	}
	defer free()
	return findTracking(types)
}

// kernelTypes gives the types of the running kernel, to be read until free is called:
// mapped, which takes Linux 6.16, else read.
func kernelTypes() (types []byte, free func(), err error) {
	f, err := os.Open("/sys/kernel/btf/vmlinux")
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if types, err = unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE); err == nil {
		return types, func() { _ = unix.Munmap(types) }, nil // what was mapped can be unmapped
	}
	types, err = os.ReadFile(f.Name())
	return types, func() {}, err
}

// BTF, as include/uapi/linux/btf.h has it: a header with the places of types and
// names behind it, and types, each of three words, by which its number is known, and
// what its kind has besides.
const (
	btfMagic  = 0xeb9f
	btfHeader = 24 // bytes
	btfType   = 12
	btfMember = 12

	btfStruct = 4
	btfFunc   = 12
)

// behind are the bytes behind the three words of a type, by its kind: once, and for
// each of its members.
var behind = [...]struct{ once, each int }{
	1: {4, 0}, 3: {12, 0}, btfStruct: {0, btfMember}, 5: {0, btfMember}, 6: {0, 8},
	btfFunc: {}, 13: {0, 8}, 14: {4, 0}, 15: {0, 12}, 17: {4, 0}, 19: {0, 12},
}

// findTracking looks for it among types; nil: not all of it is there, or they are
// written in a way that we do not know.
func findTracking(types []byte) *tracking {
	word := binary.NativeEndian.Uint32
	if len(types) < btfHeader || binary.NativeEndian.Uint16(types) != btfMagic {
		return nil
	}
	header := uint64(word(types[4:]))
	all := part(types, header+uint64(word(types[8:])), uint64(word(types[12:])))
	names := part(types, header+uint64(word(types[16:])), uint64(word(types[20:])))
	ask, end, conn, status := named(names, askTracking), named(names, endTracking), named(names, "nf_conn"), named(names, "status")
	if ask == 0 || end == 0 || conn == 0 || status == 0 {
		return nil
	}
	t := &tracking{functions: make(map[string]uint32), status: -1}
	for id := uint32(1); len(all) >= btfType; id++ {
		name, info := word(all), word(all[4:])
		kind, n := int(info>>24&0x1f), int(info&0xffff)
		all = all[btfType:]
		if kind >= len(behind) {
			return nil
		}
		more := behind[kind].once + n*behind[kind].each
		if more > len(all) {
			return nil
		}
		switch {
		case kind == btfFunc && name == ask:
			t.functions[askTracking] = id
		case kind == btfFunc && name == end:
			t.functions[endTracking] = id
		case kind == btfStruct && name == conn:
			for m := all[:more]; len(m) > 0; m = m[btfMember:] {
				if word(m) == status {
					t.status = int16(word(m[8:]) & 0xffffff / 8) // given in bits, above which there may be a width
				}
			}
		}
		all = all[more:]
	}
	if len(t.functions) != 2 || t.status < 0 {
		return nil
	}
	return t
}

// part gives n bytes of b from off on; nil: there are not so many.
func part(b []byte, off, n uint64) []byte {
	if off+n > uint64(len(b)) {
		return nil
	}
	return b[off : off+n]
}

// named gives the place of s in names; 0 is the place of the empty name, and for what is
// not among them.
func named(names []byte, s string) uint32 {
	return uint32(bytes.Index(names, []byte("\x00"+s+"\x00")) + 1)
}

// into writes t into a program, where the library would else look for it.
func (t *tracking) into(program asm.Instructions) {
	for i := range program {
		ins := &program[i]
		id, asks := t.functions[ins.Reference()]
		switch {
		case btf.CORERelocationMetadata(ins) != nil: // the status of a connection
			ins.Offset = t.status
			*ins = btf.WithCORERelocationMetadata(*ins, nil)
		case asks && ins.IsKfuncCall():
			*ins = asm.Instruction{OpCode: ins.OpCode, Src: ins.Src, Constant: int64(id)}.WithSource(ins.Source())
		case asks: // is it there?
			*ins = asm.LoadImm(ins.Dst, 1, asm.DWord).WithSource(ins.Source())
		}
	}
}
