package metrics

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"portsentry/internal/view"
)

// fake is a daemon.
type fake struct {
	asked  atomic.Int64
	err    error
	health view.Health
	block  chan struct{} // Metrics waits for it; nil: it does not
}

func (f *fake) Metrics(ctx context.Context) ([]Family, error) {
	n := f.asked.Add(1)
	if f.block != nil {
		<-f.block
	}
	return []Family{One("portsentry_asked_total", "How often.", Counter, float64(n))}, f.err
}

func (f *fake) Health(context.Context) (view.Health, error) { return f.health, f.err }

// start runs a server on a port of the loopback and gives its address.
func start(t *testing.T, f *fake, address string) (*Server, string) {
	t.Helper()
	s, err := Listen(address, "no-such-group", f)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s, s.listener.Addr().String()
}

func ask(t *testing.T, method, url string) (status int, body string, h http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func TestAnswers(t *testing.T) {
	const metrics = "# HELP portsentry_asked_total How often.\n# TYPE portsentry_asked_total counter\nportsentry_asked_total 1\n"
	well, ill := view.Health{OK: true}, view.Health{Problems: []string{"the disk is full", "nobody is there"}}
	for _, tt := range []struct {
		method, path string
		fake         *fake
		status       int
		body, kind   string
	}{
		{"GET", "/metrics", &fake{}, 200, metrics, "text/plain; version=0.0.4; charset=utf-8"},
		{"GET", "/metrics?x=1", &fake{}, 200, metrics, "text/plain; version=0.0.4; charset=utf-8"},
		{"HEAD", "/metrics", &fake{}, 200, "", "text/plain; version=0.0.4; charset=utf-8"},
		{"GET", "/metrics", &fake{err: errors.New("it is stopping")}, 503, "it is stopping\n", "text/plain; charset=utf-8"},
		{"GET", "/healthz", &fake{health: well}, 200, "ok\n", "text/plain; charset=utf-8"},
		{"GET", "/healthz", &fake{health: ill}, 503, "the disk is full\nnobody is there\n", "text/plain; charset=utf-8"},
		{"GET", "/healthz", &fake{err: errors.New("it is stopping")}, 503, "it is stopping\n", "text/plain; charset=utf-8"},
		{"POST", "/metrics", &fake{}, 405, "use GET\n", "text/plain; charset=utf-8"},
		{"DELETE", "/healthz", &fake{}, 405, "use GET\n", "text/plain; charset=utf-8"},
		{"GET", "/", &fake{}, 404, "there is /metrics and /healthz\n", "text/plain; charset=utf-8"},
		{"GET", "/metrics/", &fake{}, 404, "there is /metrics and /healthz\n", "text/plain; charset=utf-8"},
		{"GET", "/v1/bans", &fake{}, 404, "there is /metrics and /healthz\n", "text/plain; charset=utf-8"},
		{"GET", "/debug/pprof/", &fake{}, 404, "there is /metrics and /healthz\n", "text/plain; charset=utf-8"},
	} {
		_, at := start(t, tt.fake, "127.0.0.1:0")
		status, body, h := ask(t, tt.method, "http://"+at+tt.path)
		if status != tt.status || body != tt.body || h.Get("Content-Type") != tt.kind {
			t.Errorf("%s %s: %d, %s, %q", tt.method, tt.path, status, h.Get("Content-Type"), body)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Security-Policy") == "" || h.Get("Cache-Control") != "no-store" ||
			h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s: %v", tt.method, tt.path, h)
		}
	}
}

// Who asks often costs no more than one who asks each second.
func TestOneASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		s := &Server{source: f, turn: make(chan struct{}, 1)}
		for range 30 {
			if _, err := s.gather(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := f.asked.Load(); n != 3 {
			t.Errorf("gathered %d times in 3 s", n)
		}
	})
}

// Whoever waits for another who gathers does so for a time only.
func TestDeadline(t *testing.T) {
	f := &fake{block: make(chan struct{})}
	s := &Server{source: f, turn: make(chan struct{}, 1)}
	first := make(chan error, 1)
	go func() {
		_, err := s.gather(context.Background())
		first <- err
	}()
	for f.asked.Load() == 0 { // it has its turn
	}
	late, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.gather(late); !errors.Is(err, context.Canceled) {
		t.Errorf("the second got %v", err)
	}
	close(f.block)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// Clients who sit there have their places, and nobody else waits for them: one too
// many is told at once, and counted.
func TestPlaces(t *testing.T) {
	s, at := start(t, &fake{}, "127.0.0.1:0")
	dial := func() net.Conn {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	var idle []net.Conn
	for range maxClients {
		idle = append(idle, dial())
	}
	extra := dial()
	if n, err := extra.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("one too many got %d bytes, %v", n, err)
	}
	if s.Refused() != 1 {
		t.Errorf("%d refused", s.Refused())
	}
	// They are thrown out in the end.
	if n, err := idle[0].Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("an idle client got %d bytes, %v", n, err)
	}
}

// A connection is good for one request.
func TestOneRequest(t *testing.T) {
	_, at := start(t, &fake{health: view.Health{OK: true}}, "127.0.0.1:0")
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	all, err := io.ReadAll(bufio.NewReader(c))
	if n := strings.Count(string(all), "HTTP/1.1 200"); n != 1 {
		t.Errorf("%d answers, %v: %q", n, err, all)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics")
	s, _ := start(t, &fake{}, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	resp, err := client.Get("http://portsentry/metrics")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	if _, err := Listen(path, "", &fake{}); err == nil || !strings.Contains(err.Error(), "somebody else listens there") {
		t.Errorf("a second one: %v", err)
	}
	s.Close()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close() // as a daemon that was killed leaves it
	start(t, &fake{}, path)
}

func TestCannotListen(t *testing.T) {
	_, at := start(t, &fake{}, "127.0.0.1:0")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		at:                  "METRICS_LISTEN: listen tcp " + at + ": bind: address already in use; somebody else listens there: give another port, or see who it is with ss -ltnp",
		"192.0.2.1:1":       "METRICS_LISTEN: listen tcp 192.0.2.1:1: bind: cannot assign requested address; this machine has no such address",
		file:                "METRICS_LISTEN: " + file + " is there and is no socket; move it away",
		"/nonexistent/sock": "METRICS_LISTEN: listen unix /nonexistent/sock: bind: no such file or directory",
	} {
		if _, err := Listen(address, "", &fake{}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// What is closed before it runs does not run.
func TestCloseFirst(t *testing.T) {
	s, err := Listen("127.0.0.1:0", "", &fake{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := s.Run(t.Context()); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", s.listener.Addr().String()); err == nil {
		c.Close()
		t.Error("it listens still")
	}
}
