package faults_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/test/lab"
)

// limit sets how many descriptors the daemon may have, and gives what it may have had.
func (d *daemon) limit(n uint64) (was uint64) {
	d.t.Helper()
	var old unix.Rlimit
	check(d.t, unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, nil, &old))
	check(d.t, unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}, nil))
	return old.Cur
}

// TestOutOfDescriptors: without a descriptor to be had, who scans is seen and banned;
// who asks waits, or is refused, and nothing breaks. With descriptors all goes on.
func TestOutOfDescriptors(t *testing.T) {
	for _, capture := range []string{"auto", "afpacket"} {
		t.Run(capture, func(t *testing.T) {
			s := newStage(t)
			d := s.start(map[string]string{"CAPTURE": capture, "DATABASE_FILE": s.dir + "/portsentry.db", "HISTORY_FILE": s.dir + "/history"})
			s.probe(source(0))
			d.waitBans(source(0))
			d.waitCounter("database_rows_total", 2) // it is open
			was := d.limit(1)                       // every number that is free is above it
			asked := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				_, err := d.Command(ctx, "status")
				asked <- err
			}()
			s.probe(sources(1, 50)...)
			for i := 1; i < 50; i++ {
				lab.Wait(t, soon, "its line", func() bool { return len(d.from(source(i))) == 1 })
			}
			t.Logf("who asks hears: %v", <-asked)
			d.limit(was)
			d.waitBans(sources(0, 50)...)
			d.noProblem()
			s.probe(source(50))
			d.waitBans(source(50))
		})
	}
	t.Run("connect", func(t *testing.T) {
		s := newStage(t)
		d := s.start(map[string]string{"BLOCK_TCP": "0", "PORT_BANNER": "go away"}, "--connect")
		connect := func() error {
			return s.Scanner.NS.Do(func() error {
				c, err := (&net.Dialer{Timeout: soon}).Dial("tcp", netip.AddrPortFrom(s.Host.Addr4(), trap).String())
				if err != nil {
					return err
				}
				return c.Close()
			})
		}
		check(t, connect())
		lab.Wait(t, soon, "its line", func() bool { return len(d.from(s.Scanner.Addr4())) == 1 })
		made := 1
		lab.Wait(t, soon, "a descriptor is missing", func() bool {
			was := d.limit(1)
			for range 5 {
				check(t, connect()) // the kernel completes the handshake
				made++
			}
			d.limit(was)
			return d.counter("descriptors_missing_total") > 0
		})
		told := func() bool { return len(d.from(s.Scanner.Addr4())) == made }
		lab.Wait(t, soon, "all are told", told)
		check(t, connect())
		made++
		lab.Wait(t, soon, "the next", told)
	})
}
