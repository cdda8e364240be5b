package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/test/harness"
	"portsentry/test/lab"
)

// Test1000Reloads: under a scan the configuration is changed and read again, and again:
// memory and descriptors stay what they were, bans stand, and no packet goes astray.
func Test1000Reloads(t *testing.T) {
	reloads := 100
	if os.Getenv("PORTSENTRY_LONG") == "1" {
		reloads = 1000
	}
	s := newStage(t)
	variant := func(n int) map[string]string {
		c := config(map[string]string{
			"TCP_PORTS":           []string{"1,11,2222", "11,23,3333,5000-5010", "11"}[n%3],
			"UDP_PORTS":           []string{"7", "7,9,11"}[n%2],
			"HISTORY_FILE":        filepath.Join(s.dir, fmt.Sprintf("%d.history", n%2)),
			"BLOCKED_FILE":        filepath.Join(s.dir, fmt.Sprintf("%d.blocked", n%5/4)),
			"DATABASE_FILE":       filepath.Join(s.dir, fmt.Sprintf("%d.db", n%7/6)),
			"BAN_TIME_UNVERIFIED": []string{"1h", "2h"}[n%2],
			"LOG_FORMAT":          []string{"2.x", "2.x", "2.x", "1.x"}[n%4],
			"SCAN_DETECT":         []string{"traps", "full"}[n/4%2],
			"METRICS_LISTEN":      []string{"", "127.0.0.1:9199"}[n/3%2],
		})
		return c
	}
	d := s.start(variant(0))
	conf := filepath.Join(s.dir, "portsentry.conf")
	said := 0
	reload := func(n int) {
		check(t, harness.WriteConfig(conf, variant(n)))
		if n%2 == 0 {
			d.command("reload")
			said++
			return
		}
		check(t, d.Signal(syscall.SIGHUP))
		said++
		lab.Wait(t, soon, "the reload", func() bool { return d.reloads() >= said })
	}
	open := func() int {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID()))
		check(t, err)
		return len(all)
	}
	const cycle = 84 // all variants
	for n := range 10 {
		reload(n)
	}
	var before harness.Usage
	descriptors, sent := 0, 0
	begin := time.Now()
	for n := 10; n < reloads+10; n++ {
		if n == min(cycle, reloads/2) {
			var err error
			before, err = d.Usage()
			check(t, err)
			descriptors = open()
		}
		s.probe(source(sent))
		sent++
		reload(n)
	}
	t.Logf("%d reloads in %v", reloads, time.Since(begin).Round(time.Millisecond))
	reload(0)
	d.waitBans(sources(0, sent)...)
	d.noProblem()
	lab.Wait(t, soon, "every probe is seen", func() bool { return d.counter("sightings_total")+d.counter("dropped_by_ban_total") >= uint64(sent) })
	for i := range sent {
		if n := len(d.from(source(i))) + d.lines1x(source(i)); n != 1 {
			t.Errorf("%d lines about %v", n, source(i))
		}
	}
	st := d.status()
	for _, c := range st.Counters {
		if c.Loss && c.Value > 0 {
			t.Errorf("%s is %d", c.Name, c.Value)
		}
	}
	after, err := d.Usage()
	check(t, err)
	t.Logf("%d MiB before, %d MiB after; %d descriptors before, %d after", before.RSS>>20, after.RSS>>20, descriptors, open())
	// What is collected when is chance, with a heap as large as the start needed.
	if after.RSS > before.RSS+24<<20 || after.Maps > before.Maps*5/4 {
		t.Errorf("memory grew from %+v to %+v", before, after)
	}
	// Those of clients that have just gone may be open yet.
	lab.Wait(t, soon, "the descriptors of before", func() bool { return open() <= descriptors+2 })
}

// reloads is how many have been said.
func (d *daemon) reloads() (n int) {
	d.t.Helper()
	lines, err := d.Out.Lines()
	check(d.t, err)
	for _, l := range lines {
		if strings.Contains(l, "the configuration has been read again and is in force") {
			n++
		}
	}
	return n
}

// lines1x are lines about a scan in the words of 1.x.
func (d *daemon) lines1x(a fmt.Stringer) (n int) {
	d.t.Helper()
	lines, err := d.Out.Lines()
	check(d.t, err)
	for _, l := range lines {
		if strings.Contains(l, "scan from host: "+a.String()+"/") {
			n++
		}
	}
	return n
}
