package cli

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

func TestCannotAsk(t *testing.T) {
	dead := filepath.Join(t.TempDir(), "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	hangsUp := serveHTTP(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	breaksOff := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"bans":[`))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	stranger := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hello", http.StatusTeapot) })

	tests := []struct {
		socket string
		args   []string
		want   string
	}{
		{"/nowhere/s", []string{"status"}, "portsentry is not running (no socket at /nowhere/s); start it with: sudo portsentry"},
		{dead, []string{"bans"}, "portsentry is not running (nobody listens at " + dead + "); start it with: sudo portsentry"},
		{hangsUp, []string{"bans"}, "portsentry hung up without an answer; it may be stopping: try again"},
		{breaksOff, []string{"bans"}, "the answer broke off: unexpected EOF; it is not whole: try again"},
		{breaksOff, []string{"bans", "--json"}, "the answer broke off: unexpected EOF; it is not whole: try again"},
		{stranger, []string{"bans"}, "what answers at " + stranger + " does not speak as portsentry does (418 I'm a teapot)"},
		{hangsUp, []string{"bans", "--jsno"}, "unknown flag: --jsno"},
		{hangsUp, []string{"bans", "203.0.113.9"}, `bans takes no argument, and "203.0.113.9" is one`},
	}
	for _, tt := range tests {
		out, code, message := run(t, tt.socket, tt.args...)
		if code != 2 || message != tt.want {
			t.Errorf("%q: exit %d %q, want 2 %q", tt.args, code, message, tt.want)
		}
		if out != "" && tt.socket != breaksOff {
			t.Errorf("%q: wrote %q", tt.args, out)
		}
	}
}

func TestPermissionAndTimeoutAreExplained(t *testing.T) {
	for want, err := range map[string]error{
		"you may not open /s; root and the members of group portsentry may: try sudo": &net.OpError{Op: "dial", Err: os.ErrPermission},
		"portsentry did not answer within 15s; it may be very busy: try again":        context.DeadlineExceeded,
		"interrupted":                      context.Canceled,
		"cannot ask portsentry at /s: odd": errors.New("odd"),
	} {
		if got := unreachable(err, "/s"); got.Error() != want || got.Code != 2 {
			t.Errorf("%v: %d %q, want 2 %q", err, got.Code, got, want)
		}
	}
}

// With --json the answer comes through as it was, whatever is in it.
func TestJSONIsTheAnswer(t *testing.T) {
	const answer = `{"bans":[ {"later": "versions","may":["say","more"]}]}` + "\n"
	socket := serve(t, map[string]any{"GET /v1/bans": answer, "GET /v1/status": answer})
	for _, command := range []string{"bans", "status"} {
		if out, code, message := run(t, socket, command, "--json"); out != answer || code != 0 {
			t.Errorf("%s --json: exit %d %q, wrote %q", command, code, message, out)
		}
	}
}
