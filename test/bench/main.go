// Command bench measures a portsentry binary against the project's targets, in
// network namespaces of its own, and prints a table. It needs root, two cores
// and some five minutes.
//
//	go run ./test/bench [-portsentry PATH] [-only flood,answers] [-ways xdp] [-quick] [-strict]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"portsentry/test/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	misses, err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	case misses > 0:
		os.Exit(3)
	}
}

// bench is one run.
type bench struct {
	binary string
	dir    string // of this run
	ways   []way
	quick  bool
	out    io.Writer // where rows go as they are measured
	misses int
}

type section struct {
	name string
	run  func(*bench, context.Context) error
}

// sections are in the order of the table.
func sections() []section {
	return []section{
		{"answers", (*bench).answers},
		{"attackers", (*bench).attackers},
		{"flood", (*bench).floods},
		{"memory", (*bench).memory},
		{"strangers", (*bench).strangers},
		{"idle", (*bench).idle},
		{"sources", (*bench).sources},
		{"traffic", (*bench).traffic},
		{"bans", (*bench).bans},
		{"restore", (*bench).restore},
		{"database", (*bench).database},
	}
}

// run gives the number of targets missed if args say that they matter.
func run(ctx context.Context, args []string, out io.Writer) (int, error) {
	var names []string
	for _, s := range sections() {
		names = append(names, s.name)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	binary := flags.String("portsentry", "", "measure this `binary` (default: build cmd/portsentry)")
	only := flags.String("only", strings.Join(names, ","), "`sections` to measure")
	list := flags.String("ways", wayNames(), "`ways` to capture and ban")
	detect := flags.String("detect", "", "SCAN_DETECT, `traps` or full (default: as where it is not set)")
	quick := flags.Bool("quick", false, "a tenth of the packets: for trying the bench, not for figures")
	strict := flags.Bool("strict", false, "exit with 3 when a target is missed")
	if err := flags.Parse(args); err != nil {
		return 0, err
	}
	chosen := strings.Split(*only, ",")
	for _, c := range chosen {
		if !slices.Contains(names, c) {
			return 0, fmt.Errorf("-only %s: there are %s", c, strings.Join(names, ", "))
		}
	}
	ways, err := chooseWays(*list)
	if err != nil {
		return 0, err
	}
	for i := range ways {
		ways[i].detect = *detect
	}

	dir, err := os.MkdirTemp("", "psbench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	b := &bench{binary: *binary, dir: dir, ways: ways, quick: *quick, out: out}
	if b.binary == "" {
		if b.binary, err = harness.Build(ctx, dir); err != nil {
			return 0, err
		}
	}
	fmt.Fprintf(out, "go run ./test/bench %s\n%s\n\n", strings.Join(args, " "), machine())
	b.header()
	for _, s := range sections() {
		if !slices.Contains(chosen, s.name) {
			continue
		}
		if err := s.run(b, ctx); err != nil {
			return 0, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if !*strict {
		return 0, nil
	}
	return b.misses, nil
}
