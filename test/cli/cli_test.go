// Package cli tries the command as people use it: terminal sessions in
// testdata/*.txtar. Nothing here needs a privilege, and no daemon is started.
package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"portsentry/internal/app"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"portsentry": func() {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // as cmd/portsentry has it
		os.Exit(app.Main(context.Background(), app.Build{Version: "3.0.0", Commit: "4f1c2ab"}, os.Args[1:], os.Stdout, os.Stderr))
	}})
}

// TestSessions plays testdata/*.txtar; "exits N COMMAND" wants exit code N, and
// "unplace FROM TO" writes what FROM says of the session's folder as HERE.
func TestSessions(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				code := 0
				if exit, ok := errors.AsType[*exec.ExitError](err); ok {
					code = exit.ExitCode()
				}
				if strconv.Itoa(code) != args[0] {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
			"unplace": func(ts *testscript.TestScript, _ bool, args []string) {
				said := strings.ReplaceAll(ts.ReadFile(args[0]), ts.Getenv("WORK"), "HERE")
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(said), 0o600))
			},
		},
	})
}
