package faults_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portsentry/test/lab"
)

// TestDiskSlow: a disk that takes nothing, and does not say so either, holds up those
// who write to it and nobody else. What it takes in the end is all there.
func TestDiskSlow(t *testing.T) {
	const scanners = 50
	s, disk := newStage(t), newDisk(t)
	d := s.start(files(disk.path))
	s.probe(source(0))
	d.waitBans(source(0))
	history, blocked := filepath.Join(disk.path, "history"), filepath.Join(disk.path, "blocked")
	lab.Wait(t, soon, "the history", func() bool { return strings.Contains(read(t, history), source(0).String()) })
	d.waitCounter("database_rows_total", 2)

	// A thread that writes to a mapped file of a stalled disk can be stopped by nobody,
	// not even for the collector of garbage.
	if maps := read(t, fmt.Sprintf("/proc/%d/maps", d.PID())); strings.Contains(maps, disk.path) {
		t.Errorf("files are mapped:\n%s", maps)
	}

	disk.freeze()
	var slowest time.Duration
	for i := 1; i < scanners; i++ {
		s.probe(source(i))
		begin := time.Now()
		d.waitBans(source(i))
		slowest = max(slowest, time.Since(begin))
	}
	t.Logf("the slowest ban is listed after %v", slowest.Round(time.Millisecond))
	lab.Wait(t, soon, "the last line", func() bool { return len(d.from(source(scanners-1))) == 1 })
	d.problem("the disk has taken nothing", "the history")
	d.problem("the disk has not taken", "the database")
	if d.healthy() {
		t.Error("health says that all is well")
	}
	// Who asks for the past waits for the disk, alone.
	for _, args := range [][]string{{"events"}, {"sources"}, {"why", source(0).String()}, {"report"}} {
		go d.Command(t.Context(), args...)
	}
	s.probe(source(scanners))
	d.waitBans(source(scanners))
	if _, err := d.Command(t.Context(), "unban", source(scanners).String()); err != nil {
		t.Errorf("unban: %v", err)
	}

	disk.thaw()
	d.noProblem()
	if !d.healthy() {
		t.Error("health says that something is wrong")
	}
	lines, listed := read(t, history), read(t, blocked)
	for i := range scanners {
		lab.Wait(t, soon, "all lines", func() bool {
			a := source(i).String()
			if !strings.Contains(lines, "["+a+"]") || !strings.Contains(listed, "/"+a+" ") {
				lines, listed = read(t, history), read(t, blocked)
				return false
			}
			return true
		})
	}
	for _, name := range []string{"history_lines_lost_total", "database_lost_total", "log_lines_lost_total"} {
		if n := d.counter(name); n > 0 {
			t.Errorf("%s is %d", name, n)
		}
	}
	past := ""
	lab.Wait(t, soon, "the past", func() bool {
		past = d.command("events", "--json", "--kind", "probes", "-n", "1000")
		return strings.Count(past, `"source"`) == scanners+1
	})
	if b, is := d.banned()[netip.PrefixFrom(source(scanners), 32)]; is {
		t.Errorf("who was let in is banned: %+v", b)
	}
}
