package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// again is what TestAgainChild does in the second process; "" in the first.
const again = "PROC_TEST_AGAIN"

func TestAgainChild(t *testing.T) {
	how := os.Getenv(again)
	asked := make(chan os.Signal, 1)
	switch how {
	case "":
		return // the first process: TestRunAgain starts the second
	case "fail":
		fmt.Fprintln(os.Stderr, "no")
		os.Exit(3)
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
	default:
		signal.Notify(asked, syscall.SIGTERM)
	}
	fmt.Println("ready")
	<-asked
	os.Exit(0)
}

func TestRunAgain(t *testing.T) {
	for _, c := range []struct {
		how, said string
		code      int // -1: killed
		killed    bool
	}{{"wait", "ready", 0, false}, {"fail", "no", 3, false}, {"deaf", "ready", -1, true}} {
		t.Run(c.how, func(t *testing.T) {
			t.Setenv(again, c.how)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			start := time.Now()
			go func() {
				runtime.LockOSThread() // what RunAgain asks for
				defer runtime.UnlockOSThread()
				defer w.Close()
				ended <- RunAgain(ctx, []string{"-test.run=^TestAgainChild$"}, w, w)
			}()
			line, err := bufio.NewReader(r).ReadString('\n')
			if err != nil || strings.TrimSpace(line) != c.said {
				t.Errorf("it said %q, %v", line, err)
			}
			if c.how != "fail" {
				cancel()
			}
			err = <-ended
			var exit *exec.ExitError
			code := 0
			if errors.As(err, &exit) {
				code = exit.ExitCode()
			}
			if code != c.code || c.code == 0 && err != nil || c.killed != (err != nil && strings.Contains(err.Error(), "was killed")) {
				t.Errorf("exit code %d, %v", code, err)
			}
			if took := time.Since(start); c.killed != (took >= againGrace) {
				t.Errorf("after %v", took)
			}
		})
	}
}
