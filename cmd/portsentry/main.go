// Command portsentry watches the unused ports of this machine and cuts off who
// probes them. All of it is in internal/app; here are the signals and the exit
// code.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"portsentry/internal/app"
)

// Set by the linker: -ldflags "-X main.version=... -X main.commit=...".
var version, commit = "3.0.0", "unknown"

func main() {
	ctx, stop := context.WithCancel(context.Background())
	// A reader that went away costs lines, which are counted, and nothing else.
	// Caught, not ignored: commands would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals // the first one stops in order
		stop()
		second := <-signals // the second one stops at once
		os.Exit(128 + int(second.(syscall.Signal)))
	}()
	os.Exit(app.Main(ctx, app.Build{Version: version, Commit: commit}, os.Args[1:], os.Stdout, os.Stderr))
}
