package faults_test

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"portsentry/test/harness"
	"portsentry/test/lab"
	"portsentry/test/machine"
)

// TestDeadLogSocket: the log goes to a socket that nobody reads, or that is gone. That
// holds up no ban, is said, and what could not wait is counted; the daemon ends in time.
func TestDeadLogSocket(t *testing.T) {
	const scanners = 300
	for _, tc := range []struct {
		name, socket, start string
		gone                bool
	}{
		{"syslog, never read", "/dev/log", `exec /var/portsentry --logoutput syslog >/run/stream 2>&1`, false},
		{"syslog, gone", "/dev/log", `exec /var/portsentry --logoutput syslog >/run/stream 2>&1`, true},
		{"journal, never read", "/run/systemd/journal/socket", `exec >/run/stream 2>&1; JOURNAL_STREAM=$(stat -c %d:%i /run/stream) exec /var/portsentry`, false},
		{"journal, gone", "/run/systemd/journal/socket", `exec >/run/stream 2>&1; JOURNAL_STREAM=$(stat -c %d:%i /run/stream) exec /var/portsentry`, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t)
			m := machine.New(t, s.Host.NS)
			conf := ""
			for k, v := range config(nil) {
				conf += k + `="` + v + "\"\n"
			}
			m.Write("/etc/portsentry/portsentry.conf", conf)
			check(t, os.Link(lab.Binary(t), m.Path("/var/portsentry")))
			path := m.Path(tc.socket)
			check(t, os.MkdirAll(filepath.Dir(path), 0o755))
			conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			check(t, err)
			check(t, conn.SetReadBuffer(4096))
			t.Cleanup(func() { conn.Close() })
			p := m.Start("/bin/sh", "-c", tc.start)
			ask := func(args ...string) string {
				out, _ := m.Try(append([]string{"/var/portsentry"}, args...)...)
				return out
			}
			lab.Wait(t, soon, "the daemon watches", func() bool {
				if !p.Running() {
					t.Fatalf("it ended: %s", m.Read("/run/stream"))
				}
				return strings.Contains(ask("status", "--json"), `"how"`)
			})
			if tc.gone {
				check(t, conn.Close())
				os.Remove(path)
			}
			s.probe(sources(0, scanners)...)
			lab.Wait(t, soon, "all bans", func() bool {
				return strings.Count(ask("bans", "--json"), `"prefix"`) == scanners
			})
			if strings.HasPrefix(tc.name, "syslog") {
				lab.Wait(t, soon, "a problem", func() bool { return strings.Contains(ask("health"), "syslog daemon") })
				conn.Close()
				os.Remove(path)
				log := m.Syslog() // another takes the place of the dead one
				log.Wait(soon, source(scanners-1).String())
				lab.Wait(t, soon, "no problem", func() bool { return !strings.Contains(ask("health"), "syslog daemon") })
			} else if tc.gone {
				lab.Wait(t, soon, "the line on the stream beside it", func() bool {
					return strings.Contains(m.Read("/run/stream"), source(scanners-1).String())
				})
			} else {
				lab.Wait(t, soon, "what is lost is counted", func() bool {
					var st harness.Status
					check(t, json.Unmarshal([]byte(ask("status", "--json")), &st.Status))
					n, _ := st.Counter("log_lines_lost_total")
					return n > 0
				})
			}
			p.Stop(syscall.SIGINT)
		})
	}
}
