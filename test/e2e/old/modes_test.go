package old_test

import (
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"portsentry/test/lab"
)

// In connect mode ports are open, and who connects has the line and the banner
// of 1.2.
func TestConnect(t *testing.T) {
	const banner = "** UNAUTHORIZED ACCESS PROHIBITED **"
	theirs, ours := worlds(t)
	both(theirs, ours, func(w *world) {
		w.start(map[string]string{"PORT_BANNER": banner}, "tcp", "udp")
	})
	for _, args := range []string{"-sT", "-sS", "-sU", "-sF", "-sX"} {
		t.Run(args, func(t *testing.T) {
			both(theirs, ours, func(w *world) { w.scan(args, "-p", "1,7,9,11,12,15") })
			var ids []string
			if len(theirs.lines()) > 0 {
				ids = []string{"log-only-files"}
			}
			same(t, theirs, ours, ids...)
		})
	}
	for proto, port := range map[string]uint16{"tcp": 11, "udp": 7} {
		from := others.Addr().Next()
		want, got := theirs.talk(proto, from, port), ours.talk(proto, from, port)
		if want != banner || got != want {
			t.Errorf("%s: 1.2 answers %q, ours %q", proto, want, got)
		}
	}
	for _, w := range []*world{theirs, ours} {
		open := lab.Nmap(t, w.Scanner.NS, "-sT", "-p", "1,11,12,15", scanned.String())
		if got := regexp.MustCompile(`(?m)^(\d+)/tcp +open `).FindAllStringSubmatch(open, -1); len(got) != 3 {
			t.Errorf("%s: nmap finds\n%s", w.name, open)
		}
	}
}

// talk sends a byte and gives the answer.
func (w *world) talk(proto string, from netip.Addr, port uint16) (answer string) {
	w.t.Helper()
	check(w.t, w.Scanner.NS.Do(func() error {
		var local net.Addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		if proto == "udp" {
			local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		c, err := (&net.Dialer{LocalAddr: local}).Dial(proto, netip.AddrPortFrom(scanned, port).String())
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if proto == "udp" {
			c.Write([]byte("?"))
			b := make([]byte, 1500)
			n, err := c.Read(b)
			answer = string(b[:n])
			return err
		}
		b, err := io.ReadAll(c)
		answer = string(b)
		return err
	}))
	return answer
}

// In advanced mode every port below the number is a trap but for those in use
// at the start and those that are excluded.
func TestAdvanced(t *testing.T) {
	theirs, ours := worlds(t)
	both(theirs, ours, func(w *world) {
		w.serve(22)
		w.last = 1000
		w.start(nil, "atcp", "audp")
	})
	var starts [2][]string
	for i, w := range []*world{theirs, ours} {
		for _, e := range w.log.Entries() {
			starts[i] = append(starts[i], unversioned(e.Text))
		}
	}
	if m := compare(starts[0], starts[1]); len(m) > 0 {
		t.Errorf("at the start: %s", strings.Join(m, "\n"))
	}
	const ports = "1,2,22,67,112,113,114,137,138,139,520,1022,1023,1024,1025,5000,65535"
	for _, args := range []string{"-sS", "-sU", "-sX"} {
		t.Run(args, func(t *testing.T) {
			both(theirs, ours, func(w *world) {
				w.scan(args, "-p", ports)
			})
			same(t, theirs, ours, "log-only-files")
		})
	}
}

var version = regexp.MustCompile(`^(adminalert: PortSentry )\d\S*( is starting\.)$`)

// unversioned takes the version out of the first line (first-line).
func unversioned(text string) string { return version.ReplaceAllString(text, "${1}VERSION$2") }

// The lines at start and stop are those of 1.2: the version first, one for each
// port, "active" last; at the end both that say so.
func TestStartAndStop(t *testing.T) {
	for _, modes := range [][]string{{"stcp"}, {"sudp"}, {"tcp"}, {"udp"}, {"atcp"}, {"audp"}} {
		t.Run(strings.Join(modes, " "), func(t *testing.T) {
			theirs, ours := worlds(t)
			both(theirs, ours, func(w *world) { w.start(nil, modes...) })
			texts := func(w *world) func() []string {
				return func() (lines []string) {
					for _, e := range w.log.Entries()[w.step:] {
						lines = append(lines, unversioned(e.Text))
					}
					if len(lines) > 2 && modes[0][0] == 'a' {
						slices.Sort(lines[1 : len(lines)-1]) // exclusion-order
					}
					return lines
				}
			}
			sameList(t, "start", texts(theirs), texts(ours))
			both(theirs, ours, func(w *world) {
				entries := w.log.Entries()
				w.step = len(entries)
				w.end(entries[len(entries)-1].PID)
			})
			sameList(t, "stop", texts(theirs), texts(ours))
			theirs.tagged()
			ours.tagged()
		})
	}
}

// end terminates a process of the machine and waits for its end.
func (w *world) end(pid int) {
	w.t.Helper()
	w.Run("kill", "-TERM", strconv.Itoa(pid))
	lab.Wait(w.t, patience, w.name+" ends", func() bool {
		return !slices.Contains(w.Processes("portsentry"), pid)
	})
}

// 1.2 does not know SIGHUP and lives on; so does ours.
func TestHangUp(t *testing.T) {
	theirs, ours := worlds(t)
	both(theirs, ours, func(w *world) {
		w.start(nil, "stcp")
		entries := w.log.Entries()
		w.take(func() {
			w.Run("kill", "-HUP", strconv.Itoa(entries[len(entries)-1].PID))
			w.knock("tcp", scanner, 1)
		})
	})
	for _, w := range []*world{theirs, ours} {
		if !slices.Contains(w.lines(), "attackalert: TCP SYN/Normal scan from host: 10.77.0.2/10.77.0.2 to TCP port: 1") {
			t.Errorf("%s: %q", w.name, w.lines())
		}
	}
}
