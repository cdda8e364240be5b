package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"portsentry/internal/view"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(askEnv); path != "" {
		askAndPrint(path)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// backend is State and Changes with two bans.
type backend struct {
	mu      sync.Mutex
	bans    []view.Ban
	caller  view.Caller   // who asked last for a change
	order   view.Order    // of the last ban
	within  time.Duration // of the last reload
	waiting []view.Pending
	hold    chan struct{} // when set, Status waits for it
	err     error
}

func newBackend() *backend {
	since := time.Date(2026, 11, 21, 9, 14, 2, 0, time.UTC)
	until := since.Add(time.Hour)
	return &backend{bans: []view.Ban{
		{Prefix: netip.MustParsePrefix("203.0.113.9/32"), Scope: "all", Strength: "soft", Evidence: "E1",
			Since: since, Until: &until, Times: 2, Reason: "syn to trap port 23, unverified", Methods: []string{"nftables"}},
		{Prefix: netip.MustParsePrefix("2001:db8:1:2::/64"), Scope: "tcp", Strength: "limited", Evidence: "E1",
			Since: since, Times: 1, Reason: "syn to trap port 23, unverified", Methods: []string{"KILL_ROUTE"}},
	}}
}

func (b *backend) Join(_ context.Context, who view.Caller, j view.Join) (view.Modes, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.caller = who
	return view.Modes{PID: 7, TCP: j.TCP, UDP: j.UDP}, b.err
}

func (b *backend) Status(ctx context.Context) (view.Status, error) {
	if b.hold != nil {
		select {
		case <-b.hold:
		case <-ctx.Done():
			return view.Status{}, ctx.Err()
		}
	}
	return view.Status{Version: "3.0.0", Bans: len(b.bans)}, b.err
}

func (b *backend) Bans(context.Context) (iter.Seq[*view.Ban], error) {
	return func(yield func(*view.Ban) bool) {
		for i := range b.bans {
			if !yield(&b.bans[i]) {
				return
			}
		}
	}, b.err
}

func (b *backend) Unban(_ context.Context, who view.Caller, l view.Lifting) (view.Changed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.caller = who
	for _, ban := range b.bans {
		if l.Prefix.Overlaps(ban.Prefix) {
			return view.Changed{Lifted: []view.Ban{ban}}, b.err
		}
	}
	return view.Changed{}, b.err
}

func answering(b *backend) Backend { return Backend{State: b, Changes: b} }

// start runs a server until the test ends.
func start(t *testing.T, b *backend, group string) (s *Server, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "run", "s")
	s, err := Listen(path, group, answering(b), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there after Run: %v", err)
		}
	})
	return s, path
}

func client(t *testing.T, path string) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func ask(t *testing.T, c *http.Client, method, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://portsentry"+url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%s %s: Content-Type %q", method, url, got)
	}
	return resp.StatusCode, string(b)
}

// until polls for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(time.Millisecond), time.After(5*time.Second)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never happened: " + what)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root")
	}
	t.Skip("needs root")
}

func TestAnswers(t *testing.T) {
	needRoot(t)
	b := newBackend()
	_, path := start(t, b, "daemon")
	c := client(t, path)

	const soft = `{"prefix":"203.0.113.9/32","scope":"all","strength":"soft","evidence":"E1","since":"2026-11-21T09:14:02Z",` +
		`"until":"2026-11-21T10:14:02Z","times":2,"reason":"syn to trap port 23, unverified","methods":["nftables"]}`
	const net64 = `{"prefix":"2001:db8:1:2::/64","scope":"tcp","strength":"limited","evidence":"E1","since":"2026-11-21T09:14:02Z",` +
		`"until":null,"times":1,"reason":"syn to trap port 23, unverified","methods":["KILL_ROUTE"]}`
	tests := []struct {
		method, url string
		status      int
		body        string // "" is not compared
	}{
		{"GET", "/v1/status", 200, ""},
		{"GET", "/v1/bans", 200, `{"bans":[` + soft + "\n," + net64 + "\n]}\n"},
		{"DELETE", "/v1/bans/203.0.113.9", 200, `{"address":"203.0.113.9","lifted":[` + soft + "]}\n"},
		{"DELETE", "/v1/bans/::ffff:203.0.113.9", 200, `{"address":"203.0.113.9","lifted":[` + soft + "]}\n"},
		{"DELETE", "/v1/bans/2001:db8:1:2::7", 200, `{"address":"2001:db8:1:2::7","lifted":[` + net64 + "]}\n"},
		{"DELETE", "/v1/bans/2001:db8:1:2::%2F64", 200, `{"address":"2001:db8:1:2::","lifted":[` + net64 + "]}\n"},
		{"DELETE", "/v1/bans/192.0.2.1", 200, `{"address":"192.0.2.1","lifted":[]}` + "\n"},
		{"DELETE", "/v1/bans/203.0.113.999", 400,
			`{"error":"\"203.0.113.999\" is no address; give one like 203.0.113.9 or 2001:db8::9"}` + "\n"},
		{"DELETE", "/v1/bans/203.0.113.0/24", 200, `{"address":"203.0.113.0","lifted":[` + soft + "]}\n"},
		{"DELETE", "/v1/bans/203.0.113.9/24", 400,
			`{"error":"\"203.0.113.9/24\" names a range by an address in it; did you mean 203.0.113.0/24 or 203.0.113.9?"}` + "\n"},
		{"DELETE", "/v1/bans/", 400, ""},
		{"DELETE", "/v1/bans/" + strings.Repeat("9", 2000), 400, ""},
		{"DELETE", "/v1/bans", 405, ""},
		{"GET", "/v1/bans/203.0.113.9", 405, ""},
		{"POST", "/v1/status", 405, `{"error":"POST is not done here","hint":"use GET"}` + "\n"},
		{"GET", "/", 404, ""},
		{"GET", "/v2/status", 404, ""},
		{"GET", "//v1/status", 404, ""},
		{"GET", "/v1/../v1/status", 404, ""},
	}
	for _, tt := range tests {
		status, body := ask(t, c, tt.method, tt.url)
		if status != tt.status {
			t.Errorf("%s %.40s: status %d, want %d: %s", tt.method, tt.url, status, tt.status, body)
		}
		if d := cmp.Diff(tt.body, body); tt.body != "" && d != "" {
			t.Errorf("%s %.40s (-want +got):\n%s", tt.method, tt.url, d)
		}
		var refusal view.Refusal
		if tt.status != 200 && (json.Unmarshal([]byte(body), &refusal) != nil || refusal.Message == "") {
			t.Errorf("%s %.40s: %q is no refusal", tt.method, tt.url, body)
		}
	}
	want := view.Caller{PID: os.Getpid(), UID: 0, GID: os.Getegid(), Root: true}
	if d := cmp.Diff(want, b.caller); d != "" {
		t.Errorf("caller (-want +got):\n%s", d)
	}
}

func TestBackendFails(t *testing.T) {
	needRoot(t)
	b := newBackend()
	b.err = errors.New("netlink: no buffer space")
	_, path := start(t, b, "daemon")
	c := client(t, path)
	for _, r := range [][2]string{{"GET", "/v1/status"}, {"GET", "/v1/bans"}, {"DELETE", "/v1/bans/192.0.2.1"}} {
		status, body := ask(t, c, r[0], r[1])
		if want := `{"error":"netlink: no buffer space"}` + "\n"; status != 500 || body != want {
			t.Errorf("%s %s: %d %q, want 500 %q", r[0], r[1], status, body, want)
		}
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	s, err := Listen(path, "no-such-group", answering(newBackend()), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("mode %v, %v; want a socket, 0660", info.Mode(), err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ended); err != nil {
		t.Errorf("Run with a context that has ended: %v", err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	needRoot(t)
	_, path := start(t, newBackend(), "daemon")
	_, err := Listen(path, "daemon", answering(newBackend()), slog.New(slog.DiscardHandler))
	if want := fmt.Sprintf("another portsentry is running (pid %d)", os.Getpid()); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), want) {
		t.Errorf("Listen = %v, want ErrRunning with %q", err, want)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the first one's socket is gone: %v", err)
	}
	_ = c.Close()
}

func TestWhatIsNoSocketStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, "daemon", answering(newBackend()), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("Listen took the place of a file")
	}
	if b, err := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}
