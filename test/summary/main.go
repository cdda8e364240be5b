// Command summary reads the output of `go test -json`, shows what failed and
// closes with the counts: how many tests passed, failed and were skipped, and
// how many of them ran as root in a network namespace of their own. As root
// nothing may be skipped but what is left to make test-long.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// marker is what a test logs when it runs in a namespace that it made.
const marker = "as root in a network namespace"

// longMarker is what a test says that is left to `make test-long`.
const longMarker = "runs in make test-long"

// event is one line of `go test -json`, see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	Test       string
	Output     string
	Elapsed    float64
	ImportPath string
}

type result struct {
	passed, failed, skipped, later, namespaced int
}

func main() {
	r, err := summarise(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(2)
	}
	fmt.Printf("%d tests ran as root in a network namespace of their own\n", r.namespaced)
	fmt.Printf("%d passed, %d failed, %d skipped", r.passed, r.failed, r.skipped)
	if r.later > 0 {
		fmt.Printf("; %d are left to make test-long", r.later)
	}
	fmt.Println()
	switch {
	case r.failed > 0 || r.passed == 0:
		os.Exit(1)
	case r.skipped > 0 && os.Geteuid() == 0:
		fmt.Println("as root no test may be skipped")
		os.Exit(1)
	}
}

// summarise counts tests (not packages) and copies to out what a person wants
// to see: a line a package, and all output of what failed or was skipped.
func summarise(in io.Reader, out io.Writer) (result, error) {
	var r result
	output := make(map[string][]string)
	spaced, later := make(map[string]bool), make(map[string]bool)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(out, lines.Text()) // not ours: what the go command itself says
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output":
			output[key] = append(output[key], e.Output)
			if strings.Contains(e.Output, marker) {
				spaced[key] = true
			}
			if strings.Contains(e.Output, longMarker) {
				later[key] = true
			}
			continue
		case "build-output":
			fmt.Fprint(out, e.Output)
			continue
		case "build-fail":
			r.failed++
			continue
		case "pass", "fail", "skip":
		default:
			continue
		}
		if e.Test == "" {
			if e.Action == "fail" {
				fmt.Fprint(out, strings.Join(output[key], ""))
			}
			fmt.Fprintf(out, "%-4s %-40s %6.1f s\n", e.Action, e.Package, e.Elapsed)
			if e.Action == "fail" && r.failed == 0 {
				r.failed++ // died outside a test
			}
		} else {
			if e.Action == "skip" && later[key] {
				r.later++
				delete(output, key)
				continue
			}
			r.count(e.Action)
			if spaced[key] && e.Action == "pass" {
				r.namespaced++
			}
			if e.Action != "pass" {
				fmt.Fprint(out, strings.Join(output[key], ""))
			}
		}
		delete(output, key)
	}
	return r, lines.Err()
}

func (r *result) count(action string) {
	switch action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
	case "skip":
		r.skipped++
	}
}
