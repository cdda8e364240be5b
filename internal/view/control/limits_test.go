package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portsentry/internal/view"
)

// Whatever is sent, it is answered or hung up on, and the next client is served.
func TestHostileRequests(t *testing.T) {
	needRoot(t)
	_, path := start(t, newBackend(), "daemon")
	for _, raw := range []string{
		"\x00\x01\x02\r\n\r\n",
		"GET\r\n\r\n",
		"GET /v1/status HTTP/9.9\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"CONNECT 10.0.0.1:22 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"GET http://elsewhere/v1/bans HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 64<<10) + "\r\n\r\n",
		"GET /" + strings.Repeat("a", 64<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"DELETE /v1/bans/%00%0a%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"DELETE /v1/bans/fe80::1%25eth0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\nx",
		"GET /v1/status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
		"GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /v1/status HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
	} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, raw) // the server may hang up half-way
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
			// A deadline would show as an error here; so would an endless answer.
			if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%.40q: not answered in time", raw)
			}
			if resp.StatusCode == 200 && !strings.HasPrefix(raw, "GET http:") && !strings.Contains(raw, "fe80") {
				t.Errorf("%.40q: was answered", raw)
			}
			_ = resp.Body.Close()
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.40q: neither answered nor hung up on", raw)
		}
		_ = c.Close()
	}
	if status, body := ask(t, client(t, path), "GET", "/v1/status"); status != 200 {
		t.Errorf("afterwards: %d %s", status, body)
	}
}

// Connections are bounded; root keeps places of its own.
func TestTooManyClients(t *testing.T) {
	needRoot(t)
	s, path := start(t, newBackend(), "daemon")
	var held []net.Conn
	for range maxRoot {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	one, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = one.SetDeadline(time.Now().Add(5 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(one), nil)
	if err != nil {
		t.Fatal(err)
	}
	var refusal view.Refusal
	if err := json.NewDecoder(resp.Body).Decode(&refusal); err != nil || resp.StatusCode != 503 || refusal.Hint == "" {
		t.Errorf("one too many: %s, %+v, %v", resp.Status, refusal, err)
	}
	_ = resp.Body.Close()
	_ = one.Close()
	if got := s.Stats().Busy; got != 1 {
		t.Errorf("Busy = %d, want 1", got)
	}
	if len(s.listener.members) != 0 {
		t.Error("root took the places of others")
	}
	for _, c := range held {
		_ = c.Close()
	}
	until(t, "the places are given back", func() bool { return len(s.listener.root) == 0 })
	if status, _ := ask(t, client(t, path), "GET", "/v1/status"); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
}

// TestClose: a start that fails later leaves no socket behind, and the socket of
// whoever comes next is not ours to remove.
func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	quiet := slog.New(slog.DiscardHandler)
	s, err := Listen(path, "", answering(newBackend()), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	next, err := Listen(path, "", answering(newBackend()), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket of the next daemon is gone: %v", err)
	}
}

// A request that hangs is named at the stop; a client that says nothing is not
// waited for.
func TestStop(t *testing.T) {
	needRoot(t)
	for _, hang := range []bool{false, true} {
		b := newBackend()
		b.hold = make(chan struct{})
		path := filepath.Join(t.TempDir(), "s")
		s, err := Listen(path, "daemon", answering(b), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if hang {
			_, _ = io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
			until(t, "the request is being answered", func() bool { return s.serving.Load() == 1 })
		} else {
			until(t, "the client is there", func() bool { return len(s.listener.root) == 1 })
		}
		cancel()
		if err := <-done; (err != nil) != hang {
			t.Errorf("request hangs: %v; Run: %v", hang, err)
		}
		close(b.hold)
		_ = c.Close()
	}
}

func TestManyBansAreStreamed(t *testing.T) {
	needRoot(t)
	b := newBackend()
	const n = 2000
	b.bans = make([]view.Ban, n)
	for i := range b.bans {
		b.bans[i] = view.Ban{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), Reason: "<&>"}
	}
	_, path := start(t, b, "daemon")
	_, body := ask(t, client(t, path), "GET", "/v1/bans")
	var got view.BanList
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Bans) != n {
		t.Fatalf("%d bans came, want %d", len(got.Bans), n)
	}
	for i := range got.Bans {
		if got.Bans[i].Prefix != b.bans[i].Prefix || got.Bans[i].Reason != b.bans[i].Reason {
			t.Fatalf("ban %d came as %+v", i, got.Bans[i])
		}
	}
}
