package state_test

import (
	"database/sql"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"portsentry/internal/judge"
	"portsentry/test/lab"
)

// A reboot: the daemon dies without a word, and the kernel forgets everything.
func TestReboot(t *testing.T) {
	s := newStage(t)
	d := s.start(nil)
	s.knock()
	before := d.waitBan(scanner)
	d.counter("database_rows_total", 2) // the row of the scanner, and the ban
	d.Kill()
	s.emptyKernel()
	d = s.start(nil)
	after, banned := d.ban(scanner)
	if !banned {
		t.Fatal("the ban is gone")
	}
	if !after.Until.Equal(*before.Until) || !after.Since.Equal(before.Since) || after.Reason != before.Reason || after.Evidence != before.Evidence || after.Times != before.Times {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if !slices.Equal(after.Methods, before.Methods) {
		t.Errorf("held by %q, before by %q", after.Methods, before.Methods)
	}
	if out := lab.Command(t, s.Host.NS, "nft", "list", "ruleset"); !strings.Contains(out, scanner.String()) {
		t.Errorf("the firewall does not hold it:\n%s", out)
	}

	// Whom a person has let in is not banned again by the next.
	if _, err := d.Command(t.Context(), "unban", scanner.String()); err != nil {
		t.Fatal(err)
	}
	d.Kill()
	s.emptyKernel()
	d = s.start(nil)
	if b, banned := d.ban(scanner); banned {
		t.Errorf("banned again: %+v", b)
	}
}

// A network that a person has banned comes back, too, when somebody in it is spared by now:
// with the methods that let him in.
func TestRebootWithSpared(t *testing.T) {
	s := newStage(t)
	ignore := filepath.Join(t.TempDir(), "ignore")
	check(t, os.WriteFile(ignore, nil, 0o600))
	more := map[string]string{"IGNORE_FILE": ignore, "BLOCK_METHOD": "xdp,nftables,route"}
	d := s.start(more)
	for _, network := range []string{"198.51.100.0/24", "203.0.113.0/24"} {
		if _, err := d.Command(t.Context(), "ban", network); err != nil {
			t.Fatal(err)
		}
	}
	d.Kill()
	s.emptyKernel()
	lab.Command(t, s.Host.NS, "ip", "route", "flush", "proto", "112")
	check(t, os.WriteFile(ignore, []byte("198.51.100.7\n"), 0o600))
	d = s.start(more)
	for a, want := range map[string][]string{"198.51.100.9": {"xdp", "nftables"}, "203.0.113.9": {"xdp", "nftables", "route"}} {
		if b, banned := d.ban(netip.MustParseAddr(a)); !banned || !slices.Equal(b.Methods, want) {
			t.Errorf("%s: %v %+v", a, banned, b)
		}
	}
	if routes := lab.Command(t, s.Host.NS, "ip", "route", "show", "proto", "112"); strings.Contains(routes, "198.51.100.") || !strings.Contains(routes, "203.0.113.0/24") {
		t.Errorf("routes:\n%s", routes)
	}
}

// A route does not keep how hard a ban is; the database does.
func TestCrashWithRoute(t *testing.T) {
	s := newStage(t)
	more := map[string]string{"BLOCK_METHOD": "route"}
	d := s.start(more)
	banned := netip.MustParseAddr("198.51.100.7")
	if _, err := d.Command(t.Context(), "ban", banned.String()); err != nil {
		t.Fatal(err)
	}
	before := d.waitBan(banned)
	d.Kill()
	d = s.start(more)
	if after := d.waitBan(banned); after.Strength != "full" || after.Strength != before.Strength || !slices.Equal(after.Methods, []string{"route"}) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

// What the kernel has kept for one method alone is the other's, too.
func TestCrashShares(t *testing.T) {
	s := newStage(t)
	d := s.start(nil)
	s.knock()
	d.waitBan(scanner)
	d.Kill()
	check(t, os.RemoveAll(s.pins()))
	d = s.start(nil)
	lab.Wait(t, soon, "both methods", func() bool {
		b, banned := d.ban(scanner)
		return banned && slices.Equal(b.Methods, []string{"xdp", "nftables"})
	})
}

// A crash: the kernel holds the ban, the database knows why.
func TestCrash(t *testing.T) {
	s := newStage(t)
	d := s.start(nil)
	s.knock()
	before := d.waitBan(scanner)
	d.counter("database_rows_total", 2)
	d.Kill()
	d = s.start(nil)
	after := d.waitBan(scanner)
	if after.Reason != before.Reason || !after.Since.Equal(before.Since) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

// A ban that was relaxed a moment before a crash is not back in full after a reboot.
func TestRelaxedBeforeCrash(t *testing.T) {
	s := newStage(t)
	d := s.start(nil)
	lab.Command(t, s.Scanner.NS, "nmap", "-n", "-Pn", "-sA", "-p1", "--max-retries", "0", lab.HostAddrs[0].Addr().String())
	before := d.waitBan(scanner)
	d.counter("database_rows_total", 2)
	d.Kill()
	db, err := sql.Open("sqlite", "file:"+s.db) // as if it had not been written yet
	check(t, err)
	_, err = db.Exec("UPDATE bans SET strength = ?", judge.Soft)
	check(t, errors.Join(err, db.Close()))
	stands := func(when string) {
		t.Helper()
		if b := d.waitBan(scanner); b.Strength != "limited" || !b.Since.Equal(before.Since) {
			t.Errorf("%s: %+v", when, b)
		}
	}
	d = s.start(nil)
	stands("after the crash")
	d.counter("database_rows_total", 1)
	d.Kill()
	s.emptyKernel()
	d = s.start(nil)
	stands("after the reboot")
}

func TestDamagedDatabase(t *testing.T) {
	s := newStage(t)
	check(t, os.WriteFile(s.db, []byte(strings.Repeat("no database\n", 1000)), 0o600))
	d := s.start(nil)
	d.problem("the database is begun anew", s.db+".damaged-")
	if aside, err := filepath.Glob(s.db + ".damaged-*"); len(aside) != 1 || err != nil {
		t.Error(aside, err)
	}
	s.knock()
	d.waitBan(scanner)
	d.counter("database_rows_total", 2)
}

// A disk that takes nothing is no reason not to ban.
func TestReadOnlyDisk(t *testing.T) {
	s := newStage(t)
	disk := filepath.Join(t.TempDir(), "disk")
	check(t, os.Mkdir(disk, 0o755))
	check(t, syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_RDONLY, "size=1m,mode=755"))
	t.Cleanup(func() { check(t, syscall.Unmount(disk, syscall.MNT_DETACH)) })
	d := s.start(map[string]string{"DATABASE_FILE": filepath.Join(disk, "portsentry.db")})
	d.problem("kept in memory", "read-only")
	s.knock()
	d.waitBan(scanner)
	d.counter("database_rows_total", 2) // in memory
}

// A page of the file is something else. The file is looked through when the daemon is
// already within its sandbox.
func TestDamagedPages(t *testing.T) {
	s := newStage(t)
	fill(t, s.db, 1000)
	f, err := os.OpenFile(s.db, os.O_WRONLY, 0)
	check(t, err)
	for page := int64(20); page < 40; page++ {
		_, err := f.WriteAt([]byte(strings.Repeat("\xff", 4096)), page*4096)
		check(t, err)
	}
	check(t, f.Close())
	d := s.start(nil)
	d.problem("the database is begun anew", s.db+".damaged-")
	st, err := d.Status(t.Context())
	check(t, err)
	d.Kill()
	whole(t, s.db) // nobody else can read it before
	s.emptyKernel()
	again, err := s.start(nil).Status(t.Context())
	check(t, err)
	if again.Bans != st.Bans {
		t.Errorf("%d bans stood, the new database knew %d", st.Bans, again.Bans)
	}
}

// Another DATABASE_FILE is taken up by a reload, with the bans in force.
func TestReloadTakesAnotherFile(t *testing.T) {
	s := newStage(t)
	d := s.start(nil)
	s.knock()
	before := d.waitBan(scanner)
	config := filepath.Join(s.dir, "portsentry.conf")
	text, err := os.ReadFile(config)
	check(t, err)
	s.db += ".other"
	check(t, os.WriteFile(config, []byte(strings.Replace(string(text), `portsentry.db"`, `portsentry.db.other"`, 1)), 0o600))
	_, err = d.Command(t.Context(), "reload")
	check(t, err)
	lab.Wait(t, soon, "the other file", func() bool {
		db, err := os.ReadFile(s.db + "-wal")
		return err == nil && strings.Contains(string(db), before.Reason)
	})
	d.Kill()
	s.emptyKernel()
	d = s.start(nil)
	if after, banned := d.ban(scanner); !banned || after.Reason != before.Reason {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}
