package defects_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"portsentry/test/lab"
)

// In connect mode 1.2 named the wrong port, in the log and in $PORT$, when
// another one could not be bound, and left the last of many unserved when it had
// inherited descriptors. 2.x never came to the end of a range that ends at
// 65535. Whether the kernel steers or each port has a socket of its own.
func TestConnectPorts(t *testing.T) {
	for _, tt := range []struct {
		name, method string
		before       []string
	}{
		{"steered", "sk_lookup", nil},
		{"bound", "bind", []string{"setpriv", "--bounding-set", "-bpf,-sys_admin"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t)
			s.serve("tcp", 11)
			s.serve("udp", 9)
			ports := []string{"1", "11", "15", "79"}
			for p := 2000; p < 2300; p++ {
				ports = append(ports, fmt.Sprint(p))
			}
			s.conf(map[string]string{
				"TCP_PORTS": strings.Join(ports, ",") + ",65530-65535", "UDP_PORTS": "7,9,69",
				"BLOCK_TCP": "2", "BLOCK_UDP": "2", "KILL_RUN_CMD": "echo $TARGET$ $PORT$ $MODE$ >>" + ran,
			})
			inherit := `for i in $(seq 10 80); do eval "exec $i</etc/passwd"; done; exec "$0" "$@"`
			s.detach(slices.Concat(tt.before, []string{"bash", "-c", inherit, lab.Binary(t), "-tcp", "-udp"})...)

			if got := s.Run(lab.Binary(t), "status"); !strings.Contains(got, tt.method) {
				t.Errorf("not by %s:\n%s", tt.method, got)
			}
			look := fmt.Sprintf("ls -l /proc/%d/fd || true", s.pid()) // it opens and closes others
			if fds := s.Run("sh", "-c", look); !strings.Contains(fds, "/dev/null") || strings.Contains(fds, "passwd") {
				t.Errorf("inherited descriptors are kept:\n%s", fds)
			}
			var want []string
			for i, c := range []struct {
				proto string
				port  uint16
			}{{"tcp", 15}, {"tcp", 79}, {"tcp", 2000}, {"tcp", 2299}, {"tcp", 65535}, {"udp", 69}, {"udp", 7}} {
				from := source(byte(i + 1))
				if !s.probe(c.proto, from, c.port) {
					t.Errorf("%d/%s is closed", c.port, c.proto)
				}
				want = append(want, fmt.Sprintf("%s %d %s", from, c.port, c.proto))
				s.waitFile(ran, len(want))
				alert := fmt.Sprintf("attackalert: Connect from host: %s/%[1]s to %s port: %d", from, strings.ToUpper(c.proto), c.port)
				s.log.Wait(patience, alert)
				if got := s.alerts(" from host: "); len(got) != len(want) || got[i] != alert {
					t.Errorf("%d alerts, want %d, the last one %s: %q", len(got), len(want), alert, got)
				}
			}
			if got := s.waitFile(ran, len(want)); !slices.Equal(got, want) {
				t.Errorf("the commands were told %q, want %q", got, want)
			}
			if s.probe("tcp", source(99), 2300) || s.probe("tcp", source(99), 65529) {
				t.Error("a port is open that nobody listed")
			}
		})
	}
}
