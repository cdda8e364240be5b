package faults_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/test/lab"
)

// TestDiskFull: a full disk stops neither watching nor banning nor letting in. What it
// did not take is counted, or waits, and with room everything goes on by itself.
func TestDiskFull(t *testing.T) {
	const scanners = 200
	s := newStage(t)
	disk := filepath.Join(t.TempDir(), "disk")
	check(t, os.Mkdir(disk, 0o755))
	check(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=2m,mode=755"))
	t.Cleanup(func() { check(t, unix.Unmount(disk, unix.MNT_DETACH)) })
	d := s.start(files(disk))
	s.probe(source(0))
	d.waitBans(source(0))
	d.waitCounter("database_rows_total", 2)
	d.noProblem()

	ballast, err := os.Create(filepath.Join(disk, "ballast"))
	check(t, err)
	for n := 1 << 16; n > 0; { // to the last byte
		if _, err := ballast.Write(make([]byte, n)); err != nil {
			n /= 2
		}
	}
	for i := 1; i < scanners; i++ {
		s.probe(source(i))
	}
	d.waitBans(sources(1, scanners)...)
	for i := range 3 {
		d.command("unban", source(i).String())
	}
	lab.Wait(t, soon, "all lines", func() bool { return len(d.from(source(scanners-1))) == 1 })
	d.problem("the history is not written", "no space left")
	d.problem("the blocked file is not up to date", "no space left")
	d.problem("the database", "kept in memory")
	d.waitCounter("history_lines_lost_total", 1)
	d.waitCounter("database_failed_total", 1)
	if d.healthy() {
		t.Error("health says that all is well")
	}

	check(t, ballast.Close())
	check(t, os.Remove(ballast.Name()))
	s.probe(source(scanners))
	d.waitBans(source(scanners))
	d.noProblem()
	if !d.healthy() {
		t.Error("health says that something is wrong")
	}
	if n := d.counter("database_lost_total"); n > 0 {
		t.Errorf("the database lacks %d", n)
	}
	past := ""
	lab.Wait(t, soon, "the whole past", func() bool {
		past = d.command("events", "--json", "--kind", "probes", "-n", "1000")
		return strings.Count(past, `"source"`) == scanners+1
	})
	lost := int(d.counter("history_lines_lost_total"))
	if n := strings.Count(read(t, filepath.Join(disk, "history")), "Scan from: "); n+lost < scanners+1 || n == 0 {
		t.Errorf("%d lines in the history and %d lost of %d", n, lost, scanners+1)
	}
	lab.Wait(t, soon, "the blocked file", func() bool {
		return strings.Count(read(t, filepath.Join(disk, "blocked")), " TCP Blocked\n") == scanners+1-3
	})
}
