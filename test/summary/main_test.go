package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestSummarise(t *testing.T) {
	in := `{"Action":"output","Package":"p","Test":"A","Output":"    x.go:1: as root in a network namespace\n"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"B","Output":"B went wrong\n"}
{"Action":"fail","Package":"p","Test":"B"}
{"Action":"skip","Package":"p","Test":"C"}
{"Action":"output","Package":"p","Test":"D","Output":"    y.go:2: runs in make test-long\n"}
{"Action":"skip","Package":"p","Test":"D"}
{"Action":"fail","Package":"p","Elapsed":1.5}
go: something of its own
`
	var out bytes.Buffer
	r, err := summarise(strings.NewReader(in), &out)
	if want := (result{passed: 1, failed: 1, skipped: 1, later: 1, namespaced: 1}); err != nil || r != want {
		t.Errorf("%+v, %v; want %+v", r, err, want)
	}
	for _, want := range []string{"B went wrong", "go: something of its own"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not shown in:\n%s", want, &out)
		}
	}
}

func TestSummariseCountsDeadPackages(t *testing.T) {
	r, _ := summarise(strings.NewReader(`{"Action":"fail","Package":"p"}`+"\n"), &bytes.Buffer{})
	if r.failed != 1 {
		t.Errorf("a package that died outside a test: %+v", r)
	}
}
