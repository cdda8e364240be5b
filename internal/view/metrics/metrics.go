// Package metrics is what monitoring asks: the numbers and the health of the
// daemon in; out, by a listener of its own, GET /metrics in the text format of
// Prometheus (version 0.0.4) and GET /healthz. Nobody is asked who he is, so
// nothing here names an address that was seen, and nothing can be changed.
package metrics

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"portsentry/internal/view"
)

// Bounds of what those who ask may take.
const (
	maxClients    = 16 // connections; each is good for one request
	maxHeader     = 4 << 10
	readTimeout   = 5 * time.Second
	writeTimeout  = 10 * time.Second
	answerTimeout = 5 * time.Second
	maxAge        = time.Second // an answer is good for others who ask by then
	shutdownGrace = time.Second
)

// Source is who knows. Calls come one at a time to Metrics, and from several
// goroutines to Health.
type Source interface {
	Metrics(ctx context.Context) ([]Family, error)
	Health(ctx context.Context) (view.Health, error)
}

// Server is the listening endpoint.
type Server struct {
	source   Source
	listener *listener
	http     *http.Server
	turn     chan struct{} // held by who gathers
	text     []byte        // guarded by turn
	at       time.Time     // when text was true; guarded by turn
	closed   atomic.Bool
}

// Listen opens an address with its port, or the path of a unix socket for root
// and the members of group. What is wrong with it is the error.
func Listen(address, group string, source Source) (*Server, error) {
	l, err := open(address, group)
	if err != nil {
		return nil, err
	}
	s := &Server{source: source, listener: l, turn: make(chan struct{}, 1)}
	s.http = &http.Server{
		Handler:           http.TimeoutHandler(http.HandlerFunc(s.serve), answerTimeout, "no answer within "+answerTimeout.String()+"\n"),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       readTimeout,
		MaxHeaderBytes:    maxHeader,
		// "OPTIONS *" is a request like any other.
		DisableGeneralOptionsHandler: true,
		// Whoever can connect must not fill the log.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	s.http.SetKeepAlivesEnabled(false)
	return s, nil
}

// Run answers until ctx ends or Close is called.
func (s *Server) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.stop()
	})()
	err := s.http.Serve(s.listener)
	switch {
	case ctx.Err() != nil:
		<-stopped
		return nil
	case s.closed.Load():
		return nil
	}
	return err
}

// stop lets requests finish for a moment.
func (s *Server) stop() {
	s.closed.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
	_ = s.listener.Close() // Shutdown knows no listener before Run
}

// Close ends it, whether it runs or not.
func (s *Server) Close() error {
	s.stop()
	return nil
}

// Refused is how many connections there was no place for.
func (s *Server) Refused() uint64 { return s.listener.refused.Load() }

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	switch {
	case r.URL.Path != "/metrics" && r.URL.Path != "/healthz":
		refuse(w, http.StatusNotFound, "there is /metrics and /healthz")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "use GET")
	case r.URL.Path == "/metrics":
		s.metrics(w, r)
	default:
		s.health(w, r)
	}
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, why+"\n")
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	text, err := s.gather(r.Context())
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(text)
}

// gather is the page as of now, or of a moment ago: who asks often costs no more
// than one who asks each second.
func (s *Server) gather(ctx context.Context) ([]byte, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	if s.text != nil && time.Since(s.at) < maxAge {
		return s.text, nil
	}
	families, err := s.source.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer // a new one: the one before may be on its way
	Write(&b, families)
	s.text, s.at = b.Bytes(), time.Now()
	return s.text, nil
}

// health answers as load balancers and probes want it: by the status.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	h, err := s.source.Health(r.Context())
	switch {
	case err != nil:
		refuse(w, http.StatusServiceUnavailable, err.Error())
	case !h.OK:
		refuse(w, http.StatusServiceUnavailable, strings.Join(h.Problems, "\n"))
	default:
		_, _ = io.WriteString(w, "ok\n")
	}
}
