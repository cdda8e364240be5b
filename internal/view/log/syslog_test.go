package log

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// daemon is a syslog daemon on a datagram socket.
type daemon struct{ conn *net.UnixConn }

func listen(t *testing.T, path string) daemon {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return daemon{conn}
}

// next is the next message.
func (d daemon) next(t *testing.T) string {
	t.Helper()
	b := make([]byte, 16<<10)
	d.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := d.conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func openSyslog(t *testing.T, path string) *Syslog {
	t.Helper()
	s, err := OpenSyslog(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// header is what stands before a line, with the priority and the time in groups.
var header = regexp.MustCompile(fmt.Sprintf(`^<(\d+)>([A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d) portsentry\[%d\]: `, os.Getpid()))

func TestSyslogLevels(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	d := listen(t, path)
	ignored := with(record(detect.KindSYN), func(r *store.Record) { r.Verdict.Spared = judge.Ignored })
	same := with(record(detect.KindSYN), func(r *store.Record) { r.Verdict.Spared, r.Verdict.Sighting.Dst = judge.Own, source })
	for format, want := range map[config.LogFormat]string{
		config.Log2x:   "29 Portsentry|30 Host:|29 Scan|31 Source|29 Scan|27 adminalert:|27 wrong|30 aside|",
		config.Log1x:   "29 adminalert:|29 adminalert:|29 adminalert:|29 adminalert:|29 adminalert:|",
		config.LogJSON: "29 {|29 {|29 {|29 {|29 {|29 {|",
	} {
		var out bytes.Buffer
		w := New(Options{Format: format, Syslog: openSyslog(t, path), Stdout: &out, Stderr: &out, Verbose: true, Debug: true})
		w.Starting("3.0.0", "4f1c2ab")
		w.Scan(ignored)
		w.Scan(same)
		w.Actions(source, []respond.Action{missing})
		w.Error("wrong")
		w.Info("aside")
		closed(t, w)
		got := ""
		for range strings.Count(want, "|") {
			line := d.next(t)
			m := header.FindStringSubmatch(line)
			if m == nil {
				t.Fatalf("%s: %q has no header", format, line)
			}
			if at, err := time.ParseInLocation("Jan _2 15:04:05", m[2], time.Local); err != nil || at.Format("Jan _2") != time.Now().Format("Jan _2") {
				t.Errorf("time %q: %v", m[2], err)
			}
			word := strings.TrimPrefix(line, m[0])
			if format == config.LogJSON {
				word = word[:1]
			}
			got += m[1] + " " + strings.Fields(word)[0] + "|"
			// The terminal has the same line, but for what JSON says in plain words there.
			if format == config.Log1x && !strings.Contains(out.String(), strings.TrimPrefix(line, m[0])+"\n") {
				t.Errorf("%q is not on the terminal", line)
			}
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", format, got, want)
		}
	}
}

// A daemon that is restarted loses nothing that fits into the buffer.
func TestSyslogRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	d := listen(t, path)
	w := New(Options{Format: config.Log1x, Syslog: openSyslog(t, path)})
	w.Notice("one")
	if got := d.next(t); !strings.HasSuffix(got, ": adminalert: one") {
		t.Errorf("got %q", got)
	}
	d.conn.Close()
	w.Notice("two")
	poll(t, "the loss of the daemon", func() bool { return w.o.Syslog.Err() != nil })
	if err := w.o.Syslog.Err(); !errors.Is(err, fs.ErrNotExist) && !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), "is rsyslog") {
		t.Errorf("Err: %v", err)
	}
	w.Notice("three")
	os.Remove(path)
	d = listen(t, path)
	for _, want := range []string{"two", "three"} {
		if got := d.next(t); !strings.HasSuffix(got, ": adminalert: "+want) {
			t.Errorf("got %q, want %s", got, want)
		}
	}
	poll(t, "the end of the problem", func() bool { return w.o.Syslog.Err() == nil })
	closed(t, w)
	if s := w.Stats(); s.Lines != 3 || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
}

// poll waits until is.
func poll(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !is(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("no sign of %s", what)
		}
	}
}

// No daemon at the start is a problem, not an end. What there was no room for is
// counted, and said where it is missing.
func TestSyslogMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s, err := OpenSyslog(path)
	if s == nil || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%v, %v", s, err)
	}
	w := New(Options{Format: config.Log2x, Syslog: s})
	const sent = 30_000
	for i := range sent {
		w.Notice(fmt.Sprintf("line %06d %s", i, strings.Repeat("x", 60)))
	}
	lost := w.Stats().Lost
	if lost == 0 {
		t.Fatal("30,000 lines of 100 bytes had room")
	}
	d := listen(t, path)
	last, said := -1, false
	for n := 0; n < sent-int(lost)+1; n++ {
		_, line, _ := strings.Cut(d.next(t), "]: ")
		if strings.HasPrefix(line, "adminalert: ") {
			if want := fmt.Sprintf("adminalert: %d lines are missing here: the system log did not take them", lost); line != want {
				t.Errorf("got %q, want %q", line, want)
			}
			said = true
			continue
		}
		var i int
		if _, err := fmt.Sscanf(line, "line %d", &i); err != nil || i <= last || said && last < 0 {
			t.Fatalf("%q behind line %d: %v", line, last, err)
		}
		last = i
	}
	if !said {
		t.Error("nothing says that lines are missing")
	}
	w.Notice("and on")
	if got := d.next(t); !strings.HasSuffix(got, ": and on") {
		t.Errorf("got %q", got)
	}
	closed(t, w)
}

// A reload may change how lines read while the one about missing lines is made.
func TestSyslogGapAndReword(t *testing.T) {
	s, _ := OpenSyslog(filepath.Join(t.TempDir(), "log"))
	w := New(Options{Format: config.Log2x, Syslog: s})
	made := make(chan []byte)
	go func() { made <- w.gap(3) }()
	w.Reword(config.Log1x, config.Modes{}, "")
	if got := string(<-made); !strings.HasSuffix(got, ": adminalert: 3 lines are missing here: the system log did not take them\n") {
		t.Errorf("got %q", got)
	}
	closed(t, w)
}

// With nobody there a stop does not wait.
func TestSyslogMissingAtStop(t *testing.T) {
	s, err := OpenSyslog(filepath.Join(t.TempDir(), "log"))
	if err == nil {
		t.Fatal("no error")
	}
	w := New(Options{Format: config.LogJSON, Syslog: s})
	w.Notice("one")
	w.Notice("two")
	began := time.Now()
	closed(t, w)
	if took := time.Since(began); took > closeTime/2 {
		t.Errorf("Close took %v", took)
	}
	if s := w.Stats(); s.Lost != 2 || !errors.Is(s.Err, fs.ErrNotExist) {
		t.Errorf("%+v", s)
	}
}

// A daemon that takes nothing stops nobody; what waited gets there later.
func TestSyslogBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	d := listen(t, path)
	w := New(Options{Format: config.Log2x, Syslog: openSyslog(t, path)})
	const sent = 3000 // net.unix.max_dgram_qlen is 10 to 512
	for i := range sent {
		w.Notice(fmt.Sprint("line ", i))
	}
	poll(t, "a daemon that is busy", func() bool { return errors.Is(w.o.Syslog.Err(), os.ErrDeadlineExceeded) })
	for i := range sent {
		if got := d.next(t); !strings.HasSuffix(got, fmt.Sprint(": line ", i)) {
			t.Fatalf("got %q, want line %d", got, i)
		}
	}
	closed(t, w)
	if s := w.Stats(); s.Lost != 0 {
		t.Errorf("%+v", s)
	}
}

// Some daemons have a stream socket; there, newlines end lines.
func TestSyslogStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := New(Options{Format: config.Log2x, Syslog: openSyslog(t, path)})
	for _, text := range []string{"one", "two"} {
		w.Notice(text)
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1024)
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := conn.Read(b); err != nil || !strings.HasSuffix(string(b[:n]), ": "+text+"\n") {
			t.Errorf("got %q, %v", b[:n], err)
		}
		conn.Close() // and the next line finds another connection
	}
	closed(t, w)
}
