package log

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"portsentry/internal/config"
	"portsentry/internal/detect"
)

// A reader that stops reading stops nobody: what it does not take is counted,
// and when it reads again it gets whole lines in their order.
func TestReaderThatStops(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := New(Options{Format: config.Log2x, Stdout: in, Stderr: io.Discard})
	const sent = 40_000 // of 50 bytes: more than pipe and buffers hold
	for i := range sent {
		w.Notice(fmt.Sprintf("line %06d %s", i, strings.Repeat("x", 38)))
	}
	s := w.Stats()
	if s.Lines != sent || s.Lost == 0 || s.Lost >= sent {
		t.Fatalf("%+v", s)
	}
	read := make(chan []byte)
	go func() {
		b, err := io.ReadAll(out)
		if err != nil {
			t.Error(err)
		}
		read <- b
	}()
	w.console.wait(context.Background())
	w.Notice("line 999999 at last")
	closed(t, w)
	in.Close()
	last, n := -1, 0
	for line := range bytes.Lines(<-read) {
		var i int
		if _, err := fmt.Sscanf(string(line), "line %d", &i); err != nil || i <= last {
			t.Fatalf("%q behind line %d: %v", line, last, err)
		}
		if i < sent && len(line) != 51 {
			t.Fatalf("torn line %q", line)
		}
		last = i
		n++
	}
	if want := sent + 1 - int(s.Lost); n != want || last != 999999 {
		t.Errorf("%d lines read, want %d; the last is %d", n, want, last)
	}
}

// stuck takes nothing until it is closed.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) {
	<-s
	return len(p), nil
}

func TestCloseWaitsNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := make(stuck)
		w := New(Options{Format: config.Log2x, Stdout: out})
		w.Notice("one")
		synctest.Wait() // it is being written
		w.Notice("two")
		w.Notice("three")
		if err := w.Close(); err == nil || !strings.HasPrefix(err.Error(), "3 log lines were not written") {
			t.Errorf("Close: %v", err)
		}
		close(out)
		synctest.Wait()
		closed(t, w)
		if s := w.Stats(); s.Lines != 3 || s.Lost != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Whoever reads stdout and stderr through one pipe gets the lines in order.
func TestOneOrder(t *testing.T) {
	var both bytes.Buffer
	w := New(Options{Format: config.Log2x, Stdout: &both, Stderr: &both, Verbose: true})
	for i := range 3 {
		r := record(detect.KindSYN)
		r.Verdict.Sighting.DstPort = uint16(i)
		w.Scan(r)
		w.Error(fmt.Sprintf("error %d", i))
	}
	w.Info("two\nlines")
	closed(t, w)
	quiet := New(Options{Format: config.Log2x, Stdout: &both, Stderr: &both})
	quiet.Info("not verbose")
	closed(t, quiet)
	var got []string
	for line := range strings.Lines(both.String()) {
		f := strings.Fields(line)
		got = append(got, f[0])
	}
	if want := "Scan error Scan error Scan error two lines not"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestPlaces: what goes to stdout and what to stderr, in which words.
func TestPlaces(t *testing.T) {
	for _, tt := range []struct {
		format   config.LogFormat
		out, err string
		lines    int // on stdout
	}{
		{config.Log2x, "notice\n", "error\naside\n", 1},
		{config.Log1x, "adminalert: notice\n", "adminalert: error\nadminalert: aside\n", 1},
		{config.LogJSON, "{", "error\naside\n", 2}, // who reads JSON reads nothing else
	} {
		var out, errOut bytes.Buffer
		for _, o := range []Options{{Format: tt.format, Stdout: &out, Verbose: true}, {Format: tt.format, Stderr: &errOut, Verbose: true}} { // each alone
			w := New(o)
			w.Notice("notice")
			w.Error("error\n")
			w.Info("aside")
			closed(t, w)
		}
		if !strings.HasPrefix(out.String(), tt.out) || strings.Count(out.String(), "\n") != tt.lines || errOut.String() != tt.err {
			t.Errorf("%s: stdout %q, stderr %q", tt.format, out.String(), errOut.String())
		}
	}
}
