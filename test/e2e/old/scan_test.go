package old_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// kinds are the scans of nmap that both see, or one of them.
var kinds = []struct {
	args string
	ids  []string
}{
	{"-sS", nil},
	{"-sT", nil},
	{"-sF", nil},
	{"-sN", nil},
	{"-sX", nil},
	{"-sU", nil},
	{"-sS -f", nil},
	{"-sS --scanflags SYNFIN", nil},
	{"-sS --scanflags PSH", nil},
	{"-sS --scanflags URGSYN", nil},
	{"-sS --scanflags FINPSHURGSYN", nil},
	{"-sS --scanflags RSTSYN", nil},
	{"-sS --ip-options R", nil},
	{"-sU --ip-options R", nil},
	{"-sO", nil},
	{"-sA", []string{"ack-scans"}},
	{"-sW", []string{"ack-scans"}},
	{"-sM", []string{"ack-scans"}},
	{"-sS --badsum", []string{"bad-checksums"}},
	{"-sU --badsum", []string{"bad-checksums"}},
}

// Every kind of scan has the lines of 1.2, in log-only mode as shipped.
func TestScans(t *testing.T) {
	theirs, ours := worlds(t)
	both(theirs, ours, func(w *world) {
		w.start(nil, "stcp", "sudp")
		w.serve(15)
	})
	for _, k := range kinds {
		args := strings.Fields(k.args)
		if args[0] != "-sO" {
			args = append(args, "-p", "1,7,9,11,12,15")
		}
		t.Run(k.args, func(t *testing.T) {
			both(theirs, ours, func(w *world) { w.scan(args...) })
			ids := k.ids
			if len(theirs.lines())+len(ours.lines()) > 0 {
				ids = append(ids, "log-only-files")
			}
			same(t, theirs, ours, ids...)
		})
	}
	for _, w := range []*world{theirs, ours} {
		w.tagged()
	}
}

// The trigger counts from the same hit on, whatever the port.
func TestTrigger(t *testing.T) {
	for _, trigger := range []string{"0", "1", "2", "3", "5"} {
		t.Run(trigger, func(t *testing.T) {
			theirs, ours := worlds(t)
			both(theirs, ours, func(w *world) {
				w.start(map[string]string{"SCAN_TRIGGER": trigger}, "stcp", "sudp")
				w.take(func() {
					for range 5 {
						w.knock("tcp", scanner, 11)
					}
					for _, port := range []uint16{1, 7, 9, 7, 1} {
						w.knock("udp", others.Addr().Next(), port)
					}
				})
			})
			for _, proto := range []string{"TCP", "UDP"} {
				sameList(t, proto+" alerts",
					func() []string { return matching(theirs.lines(), " scan from host: .* to "+proto) },
					func() []string { return matching(ours.lines(), " scan from host: .* to "+proto) })
			}
		})
	}
}

// A host in the ignore file has no line, alone or in a network; others have.
func TestIgnored(t *testing.T) {
	theirs, ours := worlds(t)
	for _, w := range []*world{theirs, ours} {
		w.Write("/etc/portsentry/portsentry.ignore", fmt.Sprintf("127.0.0.1/32\n0.0.0.0\n%s\n10.77.8.128/25\n", scanner))
		w.start(nil, "stcp", "sudp")
		w.scan("-sS", "-p", "1,11")
		if lines := w.lines(); len(lines) > 0 {
			t.Errorf("%s: ignored, and still %q", w.name, lines)
		}
		w.take(func() {
			base := others.Addr().As4()
			for _, last := range []byte{127, 128, 200, 254} {
				base[3] = last
				w.knock("tcp", netip.AddrFrom4(base), 1)
				w.knock("udp", netip.AddrFrom4(base), 7)
			}
		})
		alert := `^attackalert: .* scan from host: 10\.77\.8\.127/`
		if n := len(matching(w.lines(), alert)); n != 2 {
			t.Errorf("%s: %d alerts of the one that is not ignored", w.name, n)
		}
	}
	same(t, theirs, ours)
}

// serve listens on a TCP port of the machine until the test ends.
func (w *world) serve(port int) {
	w.t.Helper()
	check(w.t, w.Host.NS.Do(func() error {
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if err == nil {
			w.t.Cleanup(func() { l.Close() })
		}
		return err
	}))
}

// daemonNotice is the priority of every line of 1.x (RFC 5424, 6.2.1: 3*8+5).
const daemonNotice = 29

// tagged checks how lines reach syslog: daemon.notice, with name and process.
func (w *world) tagged() {
	w.t.Helper()
	for _, e := range w.log.Entries() {
		if e.Priority != daemonNotice || e.Tag != "portsentry" || e.PID == 0 {
			w.t.Errorf("%s: %v", w.name, e)
		}
	}
}
