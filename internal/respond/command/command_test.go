package command

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/respond"
)

func TestOutcomes(t *testing.T) {
	for _, tt := range []struct {
		name, command string
		status        Status
		code          int
		says          string
	}{
		{"well", "echo $TARGET$ >&2; exit 0", OK, 0, ""},
		{"exit status", "echo it would not >&2; exit 3", Exited, 3, "failed with exit status 3: it would not"},
		{"not found", "/nonexistent $TARGET$", Exited, 127, "could not be found (exit status 127)"},
		{"not executable", "/etc/passwd", Exited, 126, "could not be run (exit status 126"},
		{"syntax", "if", Exited, 2, "exit status 2"},
		{"signal", "kill -9 $$", Signaled, 9, "ended by signal SIGKILL"},
		{"too long", "echo so far >&2; sleep 60", TimedOut, 0, "still running after 30s and was ended: so far"},
		{"too long and stubborn", "trap '' TERM; while :; do sleep 60; done", TimedOut, 0, "still running"},
		{"much to say", "yes aaaaaaaaa | head -c 300000 >&2; echo the end >&2; exit 1", Exited, 1, "the end"},
		{"rude", "printf 'a\\nb\\033[31m\\377' >&2; exit 1", Exited, 1, "status 1: a b [31m\ufffd"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn := serve(t, Templates{Route: tt.command}, nil, func(s *server) {
				if tt.status == TimedOut {
					s.timeLimit, s.killAfter = 200*time.Millisecond, 100*time.Millisecond
				}
			})
			c := client(t, conn, stealth, config.Dialect2x)
			a := do(t, c, order(host, respond.StepRoute))
			if len(a) != 1 || a[0].Step != respond.StepRoute || a[0].Host != host || a[0].Skipped || a[0].Took <= 0 ||
				a[0].Text != strings.ReplaceAll(tt.command, "$TARGET$", host.String()) {
				t.Errorf("%+v", a)
			}
			st := c.Stats()
			if tt.status == OK {
				if a[0].Err != nil || st != (Stats{Submitted: 1}) {
					t.Errorf("%v, %+v", a[0].Err, st)
				}
				return
			}
			e, ok := errors.AsType[*Error](a[0].Err)
			if !ok || e.Status != tt.status || e.Code != tt.code || !strings.Contains(e.Error(), tt.says) || len(e.Detail) > 2*detailSize {
				t.Errorf("%#v: %v", a[0].Err, a[0].Err)
			}
			if st.Failed != 1 || st.TimedOut != map[bool]uint64{true: 1}[tt.status == TimedOut] {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestStepsOfAnOrder(t *testing.T) {
	deny := new(fakeDeny)
	c := client(t, serve(t, Templates{Route: "iptables $TARGET$", HostsDeny: "ALL: $TARGET$", RunCmd: "exit 1"}, deny, nil), stealth, config.Dialect2x)
	v6 := netip.MustParseAddr("fd77::2")

	// In the caller's order; a failed step does not keep the next from being taken.
	a := do(t, c, order(v6, respond.StepCommand, respond.StepHostsDeny, respond.StepRoute, respond.StepCommandUndo))
	var e *Error
	if len(a) != 4 || a[0].Step != respond.StepCommand || !errors.As(a[0].Err, &e) ||
		a[1].Step != respond.StepHostsDeny || a[1].Err != nil || a[1].Skipped || a[1].Text != "ALL: [fd77::2]" ||
		a[2].Step != respond.StepRoute || !a[2].Skipped || !strings.Contains(a[2].Text, "set KILL_ROUTE6") ||
		a[3].Step != respond.StepCommandUndo || !a[3].Skipped {
		t.Errorf("%+v", a)
	}
	if a = do(t, c, order(v6, respond.StepHostsDeny)); !a[0].Skipped || a[0].Err != nil {
		t.Errorf("a line that is there: %+v", a)
	}
	if a = do(t, c, order(v6, respond.StepHostsDenyUndo)); a[0].Skipped || a[0].Err != nil || len(deny.lines) != 0 {
		t.Errorf("undone: %+v, left %q", a, deny.lines)
	}
	deny.err = errors.New("read-only file system")
	if a = do(t, c, order(v6, respond.StepHostsDeny)); !errors.As(a[0].Err, &e) || e.Status != NotRun || !strings.Contains(e.Error(), "read-only") {
		t.Errorf("a file that cannot be written: %+v", a)
	}
	// The helper checks for itself.
	if a = do(t, c, order(netip.MustParseAddr("127.0.0.1"), respond.StepHostsDeny)); !errors.As(a[0].Err, &e) || e.Status != Refused {
		t.Errorf("loopback: %+v", a)
	}
	if st := c.Stats(); st.Malformed != 1 || st.Failed != 3 || st.Submitted != 5 {
		t.Errorf("%+v", st)
	}
	if c.Submit(order(host), nil) {
		t.Error("an order without a step was taken")
	}
}

func TestMalformedRecords(t *testing.T) {
	conn := serve(t, Templates{RunCmd: "exit 0"}, nil, nil)
	good := ask(respond.StepCommand, "10.77.0.2").encode()
	bad := good
	bad[9] = 99
	b := make([]byte, replySize)
	conn.SetDeadline(time.Now().Add(deadline))
	for i, tt := range []struct {
		record []byte
		id     uint64
		status Status
	}{
		{[]byte("x"), 0, Refused}, {bad[:], 7, Refused}, {make([]byte, 4096), 0, Refused}, {good[:], 7, OK},
	} {
		conn.Write(tt.record)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		r, err := decodeReply(b[:n])
		if err != nil || r.id != tt.id || r.status != tt.status || r.refused != uint32(min(i+1, 3)) {
			t.Errorf("record %d: %+v, %v", i, r, err)
		}
	}
}

// TestAtOnce: four steps at a time, one of each host, in the order of submission.
func TestAtOnce(t *testing.T) {
	deny := &fakeDeny{pause: 5 * time.Millisecond}
	c := client(t, serve(t, Templates{HostsDeny: "ALL: $TARGET$"}, deny, nil), stealth, config.Dialect2x)
	var wg sync.WaitGroup
	var mu sync.Mutex
	turns := make(map[netip.Addr][]int)
	for i := range 40 {
		h := netip.AddrFrom4([4]byte{10, 77, 0, byte(i % 8)})
		step := respond.StepHostsDeny
		if i/8%2 == 1 {
			step = respond.StepHostsDenyUndo
		}
		wg.Add(1)
		if !c.Submit(order(h, step), func(a []respond.Action) {
			defer wg.Done()
			if a[0].Skipped || a[0].Err != nil {
				t.Errorf("out of turn: %+v", a)
			}
			mu.Lock()
			defer mu.Unlock()
			turns[h] = append(turns[h], i)
		}) {
			t.Fatal("refused")
		}
	}
	wg.Wait()
	if deny.worst != atOnce || deny.overlap {
		t.Errorf("%d at once, want %d; the same host twice at once: %v", deny.worst, atOnce, deny.overlap)
	}
	for h, turn := range turns {
		if !slices.IsSorted(turn) {
			t.Errorf("%v: order %v", h, turn)
		}
	}
}

// TestSlowCommandAndDeadHelper: while KILL_RUN_CMD sleeps, 10,000 hosts arrive;
// nobody waits, what is too much is refused. Then the helper is killed: nothing
// is forgotten.
func TestSlowCommandAndDeadHelper(t *testing.T) {
	started := filepath.Join(t.TempDir(), "started")
	h := realHelper(t, Templates{RunCmd: "echo $$ $PPID >> " + started + "; exec sleep 600"})
	c := NewClient(h.Conn(), stealth, config.Dialect2x)
	ran := make(chan error, 1)
	go func() { ran <- c.Run(t.Context()) }()

	var answered, wrong atomic.Int64
	done := func(a []respond.Action) {
		answered.Add(1)
		if len(a) != 2 || !errors.Is(a[0].Err, ErrHelperGone) || !errors.Is(a[1].Err, ErrHelperGone) {
			wrong.Add(1)
		}
	}
	a := netip.MustParseAddr("10.0.0.1")
	submit := func() bool {
		a = a.Next()
		return c.Submit(order(a, respond.StepCommand, respond.StepCommandUndo), done)
	}
	for range atOnce {
		submit()
	}
	var pids []string // of a command and of the helper, in turn
	eventually(t, "four commands run", func() bool {
		b, _ := os.ReadFile(started)
		pids = strings.Fields(string(b))
		return len(pids) == 2*atOnce
	})
	begin := time.Now()
	taken := 0
	for range 10_000 {
		if submit() {
			taken++
		}
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("10,000 submissions took %v", took)
	}
	st := c.Stats()
	if taken != queueSize || st.Waiting != queueSize || st.Refused != 10_000-queueSize || answered.Load() != 0 {
		t.Errorf("%d taken, %+v, %d answered", taken, st, answered.Load())
	}

	helper, err := strconv.Atoi(pids[1])
	if err != nil {
		t.Fatal(err)
	}
	unix.Kill(helper, unix.SIGKILL)
	select {
	case err := <-ran:
		if !errors.Is(err, ErrHelperGone) || !errors.Is(err, io.EOF) {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("Run goes on without a helper")
	}
	if answered.Load() != queueSize+atOnce || wrong.Load() != 0 {
		t.Errorf("%d answered, %d of them wrongly", answered.Load(), wrong.Load())
	}
	if submit() {
		t.Error("an order was taken without a helper")
	}
	for _, p := range pids[:2*atOnce] {
		pid, _ := strconv.Atoi(p)
		eventually(t, "commands end with their helper", func() bool { return ended(pid) })
	}
	if err := stop(t, h); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Stop: %v", err)
	}
}

// TestTimeLimitEndsTheGroup: children of the shell end as well.
func TestTimeLimitEndsTheGroup(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	c := client(t, serve(t, Templates{RunCmd: "(trap '' TERM; exec sleep 600) & echo $! > " + pidFile + "; wait"}, nil, func(s *server) {
		s.timeLimit, s.killAfter = 300*time.Millisecond, 50*time.Millisecond
	}), stealth, config.Dialect2x)
	do(t, c, order(host, respond.StepCommand))
	pid, err := strconv.Atoi(strings.TrimSpace(read(t, pidFile)))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child ends", func() bool { return ended(pid) })
}

// ended reports whether pid is gone or a zombie that waits for its reaper.
func ended(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(b), ") Z ")
}

// TestBackground: what a command leaves behind goes on, and may go on talking.
func TestBackground(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	c := client(t, serve(t, Templates{RunCmd: "(sleep 0.4; echo a word >&2; echo done > " + out + ") &"}, nil, nil), stealth, config.Dialect2x)
	if a := do(t, c, order(host, respond.StepCommand)); a[0].Err != nil || a[0].Took > 10*time.Second {
		t.Errorf("%+v", a)
	}
	eventually(t, "the background process finishes", func() bool {
		b, _ := os.ReadFile(out)
		return string(b) == "done\n"
	})
}

// TestStop: both ends stop while commands run.
func TestStop(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	ours, theirs := pair(t)
	s := newServer(theirs, fixed(Templates{RunCmd: "echo $$ >> " + pidFile + "; exec sleep 600"}), nil, new(Pace))
	if err := s.reload(); err != nil {
		t.Fatal(err)
	}
	s.stopGrace, s.killAfter = 50*time.Millisecond, 50*time.Millisecond
	served := make(chan error, 1)
	go func() { served <- s.serve(context.Background()) }()
	c := NewClient(ours, stealth, config.Dialect2x)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	var mu sync.Mutex
	var got []error
	for i := range 6 {
		c.Submit(order(netip.AddrFrom4([4]byte{10, 77, 0, byte(i)}), respond.StepCommand), func(a []respond.Action) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, a[0].Err)
		})
	}
	var pids []string
	eventually(t, "four commands run", func() bool {
		b, _ := os.ReadFile(pidFile)
		pids = strings.Fields(string(b))
		return len(pids) == atOnce
	})
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	if len(got) != 6 {
		t.Errorf("%d answers", len(got))
	}
	for _, err := range got {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("answer: %v", err)
		}
	}
	ours.Close()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	for _, p := range pids {
		if pid, _ := strconv.Atoi(p); !ended(pid) {
			t.Errorf("%d is still running", pid)
		}
	}
}

// TestServeContext: Serve ends with its context too.
func TestServeContext(t *testing.T) {
	ours, theirs := pair(t)
	defer ours.Close()
	defer theirs.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Serve(ctx, theirs, fixed(Templates{}), nil, new(Pace)); err != nil {
		t.Error(err)
	}
}

func TestStartsPerSecond(t *testing.T) {
	p := new(Pace)
	now := time.Unix(1000, 0)
	for i := range 3 * perSecond {
		if wait := p.reserve(now); wait > 0 {
			if i%perSecond != 0 || wait != time.Second {
				t.Fatalf("start %d waits %v", i, wait)
			}
			now = now.Add(wait)
			if again := p.reserve(now); again != 0 {
				t.Fatalf("start %d waits again", i)
			}
		}
	}
	if want := time.Unix(1002, 0); !now.Equal(want) {
		t.Errorf("300 starts took until %v, want %v", now, want)
	}
}

// A daemon that leaves with an answer unread is gone, and no error of ours.
func TestAnswerLeftUnread(t *testing.T) {
	ours, theirs := pair(t)
	defer theirs.Close()
	s := newServer(theirs, fixed(Templates{}), nil, new(Pace))
	if err := s.reload(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.serve(context.Background()) }()
	if _, err := ours.Write([]byte("no record")); err != nil {
		t.Fatal(err)
	}
	o := request{id: 1, step: respond.StepCommand, host: netip.MustParseAddr("203.0.113.9"), proto: 6, mode: config.Stealth, kind: 1}
	b := o.encode()
	if _, err := ours.Write(b[:]); err != nil {
		t.Fatal(err)
	}
	raw, err := ours.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "an answer", func() (there bool) {
		raw.Control(func(fd uintptr) {
			n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			there = err == nil && n > 0
		})
		return there
	})
	ours.Close()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}
