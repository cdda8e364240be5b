package ban_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// pins is the folder of what the XDP program has pinned.
func (s *stage) pins() (folder string) {
	s.t.Helper()
	check(s.t, s.Host.NS.Do(func() (err error) { folder, err = bpf.Folder(); return err }))
	return folder
}

// Somebody takes bans out of the kernel, one or all, or the program off the interface:
// they are put back, and status says so.
func TestPutBack(t *testing.T) {
	t.Parallel()
	src := nth(clients, 1)
	nft := func(args ...string) func(*stage) {
		return func(s *stage) { lab.Command(s.t, s.Host.NS, append([]string{"nft"}, args...)...) }
	}
	for _, tc := range []struct {
		name, method string
		take         func(*stage)
		said         string
		there        func(*stage) bool // nil: the source gets no answer
	}{
		{"an element", "nftables", nft("delete", "element", "inet", "portsentry", "soft4", "{ "+src.String()+" }"), "somebody took 1 ban out of the kernel", nil},
		{"a set", "nftables", nft("flush", "set", "inet", "portsentry", "soft4"), "somebody took 1 ban out of the kernel", nil},
		{"the firewall, as its service reloads it", "nftables", func(s *stage) {
			file := filepath.Join(s.t.TempDir(), "nftables.conf")
			check(s.t, os.WriteFile(file, []byte("flush ruleset\ntable inet filter {\n chain input { type filter hook input priority 0; }\n}\n"), 0o600))
			lab.Command(s.t, s.Host.NS, "nft", "-f", file)
		}, "it was made again, with 1 ban", nil},
		{"an entry of the XDP program", "xdp", func(s *stage) {
			table, err := ebpf.LoadPinnedMap(filepath.Join(s.pins(), "bans"), nil)
			check(s.t, err)
			defer table.Close()
			key := src.As16()
			check(s.t, table.Delete(append(key[:], 128, 0, 0, 0, 0, 0, 0, 0))) // struct ban_key on a little-endian machine
		}, "somebody took 1 ban out of the kernel", nil},
		{"the XDP program", "xdp", func(s *stage) {
			pins, err := filepath.Glob(filepath.Join(s.pins(), "link_*"))
			check(s.t, err)
			for _, pin := range pins {
				l, err := link.LoadPinnedLink(pin, nil)
				check(s.t, err)
				check(s.t, l.Detach())
				check(s.t, l.Close())
			}
		}, "somebody took the XDP program off", nil},
		{"the pins", "xdp", func(s *stage) { check(s.t, os.RemoveAll(s.pins())) }, "it was put there again", func(s *stage) bool {
			return bpf.Remains(s.pins())
		}},
		{"a route", "route", func(s *stage) { lab.Command(s.t, s.Host.NS, "ip", "route", "flush", "proto", "112") },
			"somebody took 1 ban out of the kernel", func(s *stage) bool {
				return strings.Contains(lab.Command(s.t, s.Host.NS, "ip", "route", "show", "proto", "112"), src.String())
			}},
		{"a set of ipset", "ipset", func(s *stage) { lab.Command(s.t, s.Host.NS, "ipset", "flush") }, "somebody took 1 ban out of the kernel", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.serve(s.Host.NS, served...)
			d := s.start(map[string]string{"BLOCK_METHOD": tc.method})
			if tc.method == "ipset" {
				for command, set := range map[string]string{"iptables": "portsentry4", "ip6tables": "portsentry6"} {
					lab.Command(t, s.Host.NS, command, "-t", "mangle", "-I", "PREROUTING", "-m", "set", "--match-set", set, "src",
						"-m", "conntrack", "--ctstate", "NEW,INVALID", "-j", "DROP")
				}
			}
			banned := func() bool {
				_, _, err := s.dial(src, 443, 300*time.Millisecond)
				return err != nil
			}
			s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
			until := *d.waitBan(src).Until
			lab.Wait(t, soon, "the ban", banned)
			begin := time.Now()
			tc.take(s)
			d.waitLine(tc.said)
			there := banned
			if tc.there != nil {
				there = func() bool { return tc.there(s) }
			}
			lab.Wait(t, soon, "the ban again", there)
			t.Logf("back after %v", time.Since(begin).Round(10*time.Millisecond))
			if b := d.waitBan(src); b.Until.Sub(until).Abs() > time.Second {
				t.Errorf("it ends at %v, before at %v", b.Until, until)
			}
			lab.Wait(t, soon, "status", func() bool {
				st, err := d.Status(t.Context())
				check(t, err)
				return len(st.Problems) == 0 && st.CheckedBans == 1 && st.Enforced == 1 && st.Checked.After(begin)
			})
			said, err := d.Command(t.Context(), "status")
			check(t, err)
			if !strings.Contains(string(said), "enforced  1 of 1 ban in the kernel, last checked") {
				t.Errorf("status says\n%s", said)
			}
		})
	}
}

// The firewall is flushed under a scan, twice, as its service does it: with XDP nobody
// who is banned gets in meanwhile, and in the end all is as it was.
func TestFlushedUnderAScan(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.serve(s.Host.NS, served...)
	d := s.start(nil)
	src := nth(clients, 1)
	s.forge(s.tcp(src, 40000, trap, pktgen.SYN))
	d.waitBan(src)
	let := 0
	scan := func(i int) {
		who := nth(clients, 2+i)
		s.forge(s.tcp(who, 40000, trap, pktgen.SYN), s.tcp(who, 40001, 443, pktgen.SYN))
		if len(s.answered(s.tcp(src, uint16(41000+i), 443, pktgen.SYN))) > 0 {
			let++
		}
	}
	for i := range 8 {
		if i == 0 || i == 4 {
			lab.Command(t, s.Host.NS, "nft", "flush", "ruleset")
		}
		scan(i)
	}
	d.waitLine("it was made again")
	if let > 0 && byXDP() {
		t.Errorf("the banned source was answered %d times", let)
	}
	lab.Wait(t, soon, "the ban in the table", func() bool { return len(s.banned(src)) > 0 })
	for i := range 8 { // whoever goes on to scan, too
		who := nth(clients, 2+i)
		lab.Wait(t, soon, "a ban of "+who.String(), func() bool {
			if _, banned := d.ban(who); banned {
				return true
			}
			s.forge(s.tcp(who, 40000, trap, pktgen.SYN))
			return false
		})
	}
	for i := range 9 {
		if who := nth(clients, 1+i); len(s.answered(s.tcp(who, 42000, 443, pktgen.SYN))) > 0 {
			t.Errorf("%v is answered", who)
		}
	}
}
