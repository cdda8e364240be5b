package bpf

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// What older kernels than this one would say of the program, and how much the
// kernel has to look through before it runs: the start waits for that.
func TestVerified(t *testing.T) {
	enterSpace(t)
	spec, err := loadXdp()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	log := loaded.Programs["sense"].VerifierLog
	said := regexp.MustCompile(`stack depth (\S+)\s+processed (\d+) insns`).FindStringSubmatch(log)
	if said == nil {
		t.Skipf("this kernel does not say how much stack a function takes: %s", log)
	}
	if n, _ := strconv.Atoi(said[2]); n > 12_000 {
		t.Errorf("the kernel follows %d instructions, of which 10,500 are enough: are there paths that never meet again?", n)
	}
	stack, chain := deepest(spec.Programs["sense"].Instructions, strings.Split(said[1], "+"))
	if stack > 512 {
		t.Errorf("%v take %d bytes of stack before Linux 6.9; there are 512", chain, stack)
	}
}

// deepest is the chain of calls that takes most of the stack, in pieces of 32 bytes.
// depths are those of the functions, in the order of their code.
func deepest(code asm.Instructions, depths []string) (stack int, chain []string) {
	depth, calls := make(map[string]int), make(map[string][]string)
	var names []string
	for _, ins := range code {
		if name := ins.Symbol(); name != "" {
			n, _ := strconv.Atoi(depths[len(names)])
			depth[name], names = (max(n, 1)+31)/32*32, append(names, name)
		}
		if ins.IsFunctionCall() {
			calls[names[len(names)-1]] = append(calls[names[len(names)-1]], ins.Reference())
		}
	}
	var walk func(string) (int, []string)
	walk = func(name string) (most int, chain []string) {
		for _, callee := range calls[name] {
			if n, below := walk(callee); n > most {
				most, chain = n, below
			}
		}
		return most + depth[name], append([]string{name}, chain...)
	}
	return walk(names[0])
}
