package bpf

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// What is found in the running kernel is what the library finds there.
func TestTrackingOfThisKernel(t *testing.T) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skipf("the types of this kernel: %v", err)
	}
	found := builtinTracking()
	var conn *btf.Struct
	if err := kernel.TypeByName("nf_conn", &conn); errors.Is(err, btf.ErrNotFound) {
		if found != nil {
			t.Fatalf("found %+v, and there is none", found)
		}
		t.Skip("connection tracking is not built into this kernel")
	}
	if found == nil {
		t.Fatal("not found")
	}
	for name, id := range found.functions {
		var f *btf.Func
		if err := kernel.TypeByName(name, &f); err != nil {
			t.Fatal(err)
		}
		if want, err := kernel.TypeID(f); err != nil || uint32(want) != id {
			t.Errorf("%s is %d, found %d (%v)", name, want, id, err)
		}
	}
	for _, m := range conn.Members {
		if m.Name == "status" && int(m.Offset.Bytes()) != int(found.status) {
			t.Errorf("status is at %d, found at %d", m.Offset.Bytes(), found.status)
		}
	}
}

// kernelOf gives the types of a kernel that has connection tracking behind a type of
// every kind.
func kernelOf(t testing.TB, without string) []byte {
	word := &btf.Int{Name: "word", Size: 8}
	proto := &btf.FuncProto{Return: word, Params: []btf.FuncParam{{Name: "status", Type: word}}}
	named := func(name string) string {
		if name == without {
			return name + "_not"
		}
		return name
	}
	all := []btf.Type{
		word, &btf.Pointer{Target: word}, &btf.Array{Index: word, Type: word, Nelems: 3},
		&btf.Union{Name: "union", Size: 8, Members: []btf.Member{{Name: "status", Type: word}}},
		&btf.Enum{Name: "enum", Size: 4, Values: []btf.EnumValue{{Name: "one", Value: 1}, {Name: "two", Value: 2}}},
		&btf.Fwd{Name: "nf_conn"}, &btf.Typedef{Name: "bpf_ct_release", Type: word},
		&btf.Volatile{Type: word}, &btf.Const{Type: word}, &btf.Restrict{Type: word}, proto,
		&btf.Var{Name: "var", Type: word}, &btf.Datasec{Name: ".data", Size: 8, Vars: []btf.VarSecinfo{{Type: &btf.Var{Name: "var", Type: word}, Size: 8}}},
		&btf.Float{Name: "float", Size: 4}, &btf.TypeTag{Type: word, Value: "tag"},
		&btf.Enum{Name: "enum64", Size: 8, Values: []btf.EnumValue{{Name: "big", Value: 1 << 40}}},
		&btf.Func{Name: "other", Type: proto, Tags: []string{"kfunc"}},
		&btf.Func{Name: named(askTracking), Type: proto},
		&btf.Func{Name: named(endTracking), Type: proto},
		&btf.Struct{Name: named("nf_conn"), Size: 24, Members: []btf.Member{
			{Name: "other", Type: word}, {Name: named("status"), Type: word, Offset: 128},
		}},
	}
	b, err := btf.NewBuilder(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestFindTracking(t *testing.T) {
	found := findTracking(kernelOf(t, ""))
	if found == nil || found.status != 16 || len(found.functions) != 2 || found.functions[askTracking] == found.functions[endTracking] {
		t.Fatalf("found %+v", found)
	}
	for _, name := range []string{askTracking, endTracking, "nf_conn"} {
		if found := findTracking(kernelOf(t, name)); found != nil {
			t.Errorf("without %s: %+v", name, found)
		}
	}
}

// Types that are cut off, or of a kind to come, are nothing to go by, and no harm.
func TestFindTrackingInRubbish(t *testing.T) {
	whole := kernelOf(t, "")
	for n := range whole {
		if found := findTracking(whole[:n:n]); found != nil {
			t.Fatalf("%d of %d bytes: %+v", n, len(whole), found)
		}
	}
	strange := append([]byte(nil), whole...)
	binary.NativeEndian.PutUint32(strange[btfHeader+4:], 31<<24)
	if found := findTracking(strange); found != nil {
		t.Errorf("a kind that nobody knows: %+v", found)
	}
}

func FuzzFindTracking(f *testing.F) {
	f.Add(kernelOf(f, ""))
	f.Fuzz(func(_ *testing.T, types []byte) { findTracking(types) })
}

func BenchmarkBuiltinTracking(b *testing.B) {
	for b.Loop() {
		builtinTracking()
	}
}
