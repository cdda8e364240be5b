package command

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/respond"
)

// Limits of the helper.
const (
	atOnce     = 4                // commands running at the same time
	perSecond  = 100              // steps begun in any one second; more wait
	timeLimit  = 30 * time.Second // then the command's process group gets SIGTERM
	killAfter  = 2 * time.Second  // and SIGKILL so much later
	stopGrace  = 2 * time.Second  // what a running command gets to end when we stop
	maxLinger  = 64               // background processes whose standard error is kept open
	stderrWait = 100 * time.Millisecond
)

// HostsDeny changes the file of the TCP wrappers. Add reports false when the
// line is there already, Remove when there was none.
type HostsDeny interface {
	Add(line string) (added bool, err error)
	Remove(line string) (removed bool, err error)
}

// Serve carries out what arrives on conn until the other end closes it or ctx
// ends, and returns when no command of its own is running any more: one that is
// still running then gets two seconds, and SIGTERM, and two seconds. It runs in
// the helper process. At most four steps run at once; the steps of one host
// come one at a time, which is the Client's doing. A record that is malformed
// is refused, counted, and the count sent with every reply.
//
// load reads the configuration, now and whenever the daemon says so. A failure
// now is Serve's own; later, the templates stay as they were. pace is one for all
// connections that a helper serves.
func Serve(ctx context.Context, conn *net.UnixConn, load func() (Templates, error), deny HostsDeny, pace *Pace) error {
	s := newServer(conn, load, deny, pace)
	if err := s.reload(); err != nil {
		return err
	}
	return s.serve(ctx)
}

type server struct {
	conn      *net.UnixConn
	load      func() (Templates, error)
	templates atomic.Pointer[Templates]
	deny      HostsDeny

	timeLimit, killAfter, stopGrace time.Duration

	refused  atomic.Uint32
	slots    chan struct{} // one held for each step under way
	linger   chan struct{} // one held for each background process we still listen to
	stopping chan struct{} // closed when running commands should come to an end
	pace     *Pace
}

func newServer(conn *net.UnixConn, load func() (Templates, error), deny HostsDeny, pace *Pace) *server {
	return &server{
		conn: conn, load: load, deny: deny, pace: pace,
		timeLimit: timeLimit, killAfter: killAfter, stopGrace: stopGrace,
		slots:    make(chan struct{}, atOnce),
		linger:   make(chan struct{}, maxLinger),
		stopping: make(chan struct{}),
	}
}

func (s *server) serve(ctx context.Context) error {
	var steps sync.WaitGroup
	defer steps.Wait()
	defer close(s.stopping)
	cut := context.AfterFunc(ctx, func() { s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer cut()

	record := make([]byte, requestSize+1) // one more: a longer record shows as longer
	for {
		n, err := s.conn.Read(record)
		switch {
		// A daemon that left with an answer of ours unread is gone all the same.
		case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return fmt.Errorf("helper socket: %w", err)
		}
		if n == reloadSize {
			s.answerReload(binary.BigEndian.Uint64(record))
			continue
		}
		req, err := decodeRequest(record[:n])
		if err != nil {
			s.refused.Add(1)
			s.answer(reply{id: req.id, status: Refused, detail: err.Error()})
			continue
		}
		s.slots <- struct{}{}
		steps.Go(func() {
			defer func() { <-s.slots }()
			start := time.Now()
			a := s.do(&req)
			a.id, a.took = req.id, time.Since(start)
			s.answer(a)
		})
	}
}

// reload reads the templates again. Steps under way keep those they began with.
func (s *server) reload() error {
	t, err := s.load()
	if err == nil {
		s.templates.Store(&t)
	}
	return err
}

func (s *server) answerReload(id uint64) {
	a := reply{id: id}
	if err := s.reload(); err != nil {
		a.status, a.detail = NotRun, err.Error()
	}
	s.answer(a)
}

// answer sends a. When it cannot, the daemon is gone, and Read says so too.
func (s *server) answer(a reply) {
	a.refused = s.refused.Load()
	b := a.encode()
	_, _ = s.conn.Write(b[:])
}

// do carries out one step.
func (s *server) do(req *request) reply {
	template, why := s.templates.Load().pick(req.step, req.host.Is6())
	if template == "" {
		return reply{status: Skipped, text: why}
	}
	hostsDeny := req.step == respond.StepHostsDeny || req.step == respond.StepHostsDenyUndo
	line := expand(template, req)
	if hostsDeny {
		line = expandLine(template, req)
	}
	if !s.await() {
		return reply{status: Stopped, text: line}
	}
	switch req.step {
	case respond.StepHostsDeny:
		return denied(line, s.deny.Add)
	case respond.StepHostsDenyUndo:
		return denied(line, s.deny.Remove)
	}
	a := s.run(line, req.environ())
	a.text = line
	return a
}

func denied(line string, change func(string) (bool, error)) reply {
	changed, err := change(line)
	switch {
	case err != nil:
		return reply{status: NotRun, text: line, detail: err.Error()}
	case !changed:
		return reply{status: Skipped, text: line}
	}
	return reply{status: OK, text: line}
}

// await holds a step back while perSecond others began within this second. It
// reports false when we stop meanwhile.
func (s *server) await() bool {
	for {
		wait := s.pace.reserve(time.Now())
		if wait == 0 {
			return true
		}
		select {
		case <-time.After(wait):
		case <-s.stopping:
			return false
		}
	}
}

// Pace is how many steps a helper has begun in this second. The zero Pace is none.
type Pace struct {
	mu      sync.Mutex
	start   time.Time // of the second that started counts
	started int
}

// reserve takes one start from this second, or says how long to wait for the next.
func (p *Pace) reserve(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.start) >= time.Second {
		p.start, p.started = now, 0
	}
	if p.started < perSecond {
		p.started++
		return 0
	}
	return p.start.Add(time.Second).Sub(now)
}
