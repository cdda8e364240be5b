package app

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// knowing is a daemon that finds scans, without packets: contacts are made by hand.
type knowing struct {
	*daemon
	t *testing.T
	p *pipeline
	c *config.Config
}

func newKnowing(t *testing.T, path string) *knowing {
	t.Helper()
	p, _, _ := newPath(t)
	d := &daemon{facts: p.facts, capturing: newTasks(t.Context())}
	t.Cleanup(func() { d.capturing.stop() })
	d.packets.Store(&packetPath{pipelines: []*pipeline{p}})
	k := &knowing{d, t, p, &config.Config{ScanDetect: config.DetectTraps}}
	k.reload(config.DetectFull, path)
	return k
}

// reload does with a configuration what apply does.
func (k *knowing) reload(how config.ScanDetect, path string) {
	k.t.Helper()
	k.c = &config.Config{ScanDetect: how, SourcesFile: path}
	if err := k.setScanner(k.p, k.c); err != nil {
		k.t.Fatal(err)
	}
	k.setKnown(k.c)
}

var slow = netip.MustParseAddr("203.0.113.9")

// fails has the scanner fail at the nth port, and reports whether it is found. Of two
// ports with one bit in detect.Memory.Ports one would count: these have a bit each.
func (k *knowing) fails(nth int) bool {
	var bits uint64
	port := uint16(1000)
	for n := 0; n < nth; {
		port++
		bit := uint64(1) << ((uint64(decode.ProtoTCP)<<16 | uint64(port) ^ k.full.Load().secret) * 0x9e3779b97f4a7c15 >> 58)
		if bits&bit == 0 {
			bits |= bit
			n++
		}
	}
	s := k.p.scans.Load()
	s.contact = detect.Contact{
		Time: 1_800_000_000e9 + int64(nth)*3600e9, Src: slow, Dst: here, SrcPort: 40000, DstPort: port,
		Proto: decode.ProtoTCP, Kind: detect.KindSYN, Outcome: detect.Refused,
	}
	return s.look() != nil
}

// kept is how many failures the file at path knows of.
func kept(t *testing.T, path string) int {
	t.Helper()
	long, err := loadLong(path)
	if err != nil {
		t.Fatal(err)
	}
	m, _ := long.Recall(slow, 1_800_000_000e9)
	return int(m.Score/2.9 + .5)
}

// What is known is written while the daemon runs, that of the workers too, so that who
// kills it grants no amnesty; and a disk that takes nothing stops nobody.
func TestKnownIsWrittenMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "lib")
		path := filepath.Join(dir, "sources")
		k := newKnowing(t, path)
		defer k.capturing.stop()
		k.fails(1)
		pass := func() {
			time.Sleep(keepEvery)
			synctest.Wait()
		}
		pass()
		if n := kept(t, path); n != 1 {
			t.Fatalf("%d failures are written after %v", n, keepEvery)
		}
		if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		k.fails(2)
		pass()
		if got := k.problems.list(); len(got) != 1 || !strings.Contains(got[0], "is not kept") {
			t.Errorf("problems %q", got)
		}
		if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700), os.WriteFile(path+".new", []byte("killed"), 0o600)); err != nil {
			t.Fatal(err)
		}
		k.fails(3)
		pass()
		if n := kept(t, path); n != 3 || len(k.problems.list()) > 0 {
			t.Errorf("%d failures are written, problems %q", n, k.problems.list())
		}
		if left, _ := filepath.Glob(dir + "/*"); !slices.Equal(left, []string{path}) {
			t.Errorf("left behind: %q", left)
		}
	})
}

// SCAN_DETECT is turned off and on, and SOURCES_FILE changed: what was known is where it
// was to be kept, and goes on from there.
func TestKnownFollowsReload(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	k := newKnowing(t, a)
	k.fails(1)
	k.fails(2)
	k.reload(config.DetectTraps, a)
	if k.full.Load() != nil || k.p.scans.Load() != nil {
		t.Error("what nobody needs is still there")
	}
	if n := kept(t, a); n != 2 {
		t.Errorf("turned off: %d of 2 failures are written", n)
	}
	k.reload(config.DetectFull, a)
	k.fails(3)
	k.reload(config.DetectFull, b) // which is not there: it begins with what is known
	if na, nb := kept(t, a), kept(t, b); na != 3 || nb != 3 {
		t.Errorf("another file: %d and %d of 3 failures are written", na, nb)
	}
	k.fails(4)
	k.reload(config.DetectFull, a) // which is there: three
	if na, nb := kept(t, a), kept(t, b); na != 3 || nb != 4 {
		t.Errorf("the first file: %d of 3, %d of 4 failures", na, nb)
	}
	if k.fails(5) {
		t.Error("found at the fourth port that this file knows of")
	}
	k.reload(config.DetectFull, "")
	if n := kept(t, a); n != 4 {
		t.Errorf("no file any more: %d of 4 failures are written", n)
	}
	if !k.fails(6) {
		t.Error("without a file what is known is forgotten")
	}
	if len(k.problems.list()) > 0 {
		t.Errorf("problems %q", k.problems.list())
	}
}

// A reload that fails behind its half has read what is known for nothing; one that
// turned it off has lost nothing.
func TestKnownOutlivesRefusedReload(t *testing.T) {
	k := newKnowing(t, filepath.Join(t.TempDir(), "a"))
	for i := range 4 {
		k.fails(i + 1)
	}
	off := &config.Config{ScanDetect: config.DetectTraps}
	if err := errors.Join(k.setScanner(k.p, off), k.setScanner(k.p, k.c)); err != nil {
		t.Fatal(err)
	}
	if !k.fails(5) {
		t.Error("four failures are forgotten")
	}
}

// A file that is none of ours is never written over, until somebody moves it.
func TestForeignFileStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "portsentry.conf")
	if err := os.WriteFile(path, []byte("TCP_PORTS=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*knowing{newKnowing(t, path), newKnowing(t, "")} {
		k.reload(config.DetectFull, path)
		k.fails(1)
		k.keepOn(k.full.Load())
		if text, _ := os.ReadFile(path); string(text) != "TCP_PORTS=1\n" {
			t.Fatalf("%q", text)
		}
		if got := k.problems.list(); len(got) != 1 || !strings.Contains(got[0], "move it aside") {
			t.Errorf("problems %q", got)
		}
		if err := os.Rename(path, path+".old"); err != nil {
			t.Fatal(err)
		}
		if err := k.closeFullDetect(); err != nil || kept(t, path) != 1 {
			t.Errorf("%v, %d failures", err, kept(t, path))
		}
		k.keepOn(k.full.Load())
		if got := k.problems.list(); len(got) > 0 {
			t.Errorf("problems %q", got)
		}
		if err := os.Rename(path+".old", path); err != nil {
			t.Fatal(err)
		}
	}
}

// What is no file to be read from holds up no start: a pipe that nobody writes to.
func TestKnownIsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sources")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := loadLong(path)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("a pipe is read: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for somebody to write to a pipe")
		if w, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
			w.Close()
		}
		<-done
	}
}
