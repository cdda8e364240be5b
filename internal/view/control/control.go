// Package control is the control socket: HTTP with JSON on a unix socket, by
// which root and the members of one group ask the daemon and change what it does.
// Requests in, answers of a Backend out (docs/json.md). Who asks is what the kernel
// says, never what the request says.
package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// Bounds of what clients may take.
const (
	maxClients    = 24 // connections of members of the group, and of strangers until they are told
	maxRoot       = 8  // connections kept for root, who must always have a way in
	maxHeader     = 4 << 10
	readTimeout   = 5 * time.Second
	idleTimeout   = 15 * time.Second
	writeTimeout  = 30 * time.Second
	answerTimeout = 10 * time.Second // the backend's
	shutdownGrace = 2 * time.Second
)

// ErrRunning says that another daemon answers at the path.
var ErrRunning = errors.New("another portsentry is running")

// Stats counts clients that got no answer. Both only grow.
type Stats struct {
	Refused uint64 // neither root nor in the group
	Busy    uint64 // more connections than are allowed
}

// Server is the listening control socket.
type Server struct {
	routes   []route
	listener *listener
	http     *http.Server
	group    string
	log      *slog.Logger
	serving  atomic.Int64    // requests being answered
	refused  atomic.Uint64   // strangers
	nextLog  atomic.Int64    // unix nanoseconds: log no refusal before
	ending   context.Context // ends when Run is to: answers that follow do then
	end      context.CancelFunc
}

// Listen opens the socket at path for root and the members of group; without
// such a group for root alone. A socket that a dead daemon left is replaced;
// with a live one behind it the error is ErrRunning.
func Listen(path, group string, b Backend, logger *slog.Logger) (*Server, error) {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	gid := groupID(group, logger)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// Between bind and here the umask ruled; the check of each peer holds anyway.
	if err := errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660)); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s := &Server{
		listener: &listener{UnixListener: l, gid: gid, members: make(chan struct{}, maxClients), root: make(chan struct{}, maxRoot)},
		group:    group,
		log:      logger,
	}
	s.ending, s.end = context.WithCancel(context.Background())
	s.routes = s.table(&b)
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ConnContext:       withPeer,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// "OPTIONS *" is a request like any other.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	return s, nil
}

// makeDir makes dir such that everybody may look into it, whatever the umask.
// A directory that is there stays as it is.
func makeDir(dir string) error {
	switch err := os.Mkdir(dir, 0o755); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	return os.Chmod(dir, 0o755)
}

// groupID is the number of a group, or -1 when only root may ask.
func groupID(name string, logger *slog.Logger) int {
	g, err := user.LookupGroup(name)
	if err != nil {
		logger.Info("the control socket is for root alone", "group", name, "reason", err)
		return -1
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return gid
}

// removeStale makes way for a new socket at path, unless somebody listens there
// or it is something else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something else that is no socket; move it away")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		defer func() { _ = c.Close() }()
		if cred, err := peerCred(c.(*net.UnixConn)); err == nil {
			return fmt.Errorf("%w (pid %d); stop it first", ErrRunning, cred.Pid)
		}
		return ErrRunning
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EAGAIN): // somebody listens whose queue is full
		return ErrRunning
	}
	return err
}

// Run answers until ctx ends, then lets requests finish and removes the socket.
func (s *Server) Run(ctx context.Context) error {
	stopped := make(chan error, 1)
	cancel := context.AfterFunc(ctx, func() { stopped <- s.stop() })
	err := s.http.Serve(s.listener)
	if cancel() {
		return fmt.Errorf("control socket: %w", err)
	}
	return <-stopped
}

// Close removes the socket of a server that does not get to Run. After Run it
// does nothing.
func (s *Server) Close() error {
	s.end()
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// stop waits for requests, not for clients who sit there saying nothing.
func (s *Server) stop() error {
	s.end()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if s.http.Shutdown(ctx) == nil {
		return nil
	}
	hung := s.serving.Load()
	_ = s.http.Close()
	if hung > 0 {
		return fmt.Errorf("control socket: %d requests still unanswered after %v", hung, shutdownGrace)
	}
	return nil
}

// Stats is a snapshot of the counters.
func (s *Server) Stats() Stats {
	return Stats{Refused: s.refused.Load(), Busy: s.listener.busy.Load()}
}
