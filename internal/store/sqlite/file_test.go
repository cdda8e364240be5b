package sqlite

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// filled is a database with bans, closed.
func filled(t *testing.T) (path string) {
	t.Helper()
	path = file(t)
	j, s, stop := running(t, Options{Path: path})
	for i := range 1000 {
		b := ban(fmt.Sprintf("10.0.%d.%d/32", i/250, i%250), -time.Minute, time.Hour)
		j.Began(b, b.Prefix.Addr())
	}
	settled(t, j)
	stop()
	if got := s.of(keyKept) + s.of(keyDamaged); got != "" {
		t.Fatal(got)
	}
	return path
}

func edit(t *testing.T, path string, do func(f *os.File) error) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(f), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// standsIn counts the bans that stand.
func standsIn(t *testing.T, j *Journal) uint64 {
	t.Helper()
	s, err := j.Sums(t.Context(), time.Time{}, time.Time{})
	if err != nil {
		t.Error(err)
	}
	return s.Standing
}

// A file that is damaged is kept under another name, and one is begun that knows the bans
// in force.
func TestDamaged(t *testing.T) {
	whole, err := os.ReadFile(filled(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		do   func(f *os.File) error
	}{
		{"no database", func(f *os.File) error { _, err := f.WriteAt([]byte(strings.Repeat("garbage", 100)), 0); return err }},
		{"cut off", func(f *os.File) error { return f.Truncate(3 * pageSize) }},
		{"cut off within a page", func(f *os.File) error { return f.Truncate(20*pageSize + 100) }},
		{"a page of something else", func(f *os.File) error {
			for n := int64(3); n < 40; n += 4 {
				if _, err := f.WriteAt([]byte(strings.Repeat("\xff", pageSize)), n*pageSize); err != nil {
					return err
				}
			}
			return nil
		}},
		{"a later version", func(f *os.File) error { _, err := f.WriteAt([]byte{0, 0, 0, 99}, 60); return err }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := file(t)
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			edit(t, path, tt.do)
			was, _ := os.ReadFile(path)
			standing := []respond.InForce{{Ban: ban("203.0.113.9/32", 0, time.Hour)}}
			j, s, stop := running(t, Options{Path: path, Standing: func() []respond.InForce { return standing }})
			if err := j.Check(t.Context()); err != nil {
				t.Error(err)
			}
			wait(t, "a new database", func() bool { return s.of(keyDamaged) != "" && standsIn(t, j) == 1 })
			stop()
			names, _ := filepath.Glob(path + ".*-*")
			if len(names) == 0 || !strings.Contains(s.of(keyDamaged), names[0]) {
				t.Fatalf("%q, said %q", names, s.of(keyDamaged))
			}
			if kept, err := os.ReadFile(names[0]); err != nil || len(kept) < len(was)-pageSize {
				t.Errorf("%d bytes of %d are kept, %v", len(kept), len(was), err)
			}
			j, s, _ = running(t, Options{Path: path})
			settled(t, j)
			if n := standsIn(t, j); n != 1 || s.of(keyDamaged) != "" {
				t.Error(n, s.of(keyDamaged))
			}
		})
	}
}

// An earlier version of the file is brought up to date, step by step.
func TestMigrate(t *testing.T) {
	steps := []string{"CREATE TABLE a (x); INSERT INTO a VALUES (1)", "ALTER TABLE a ADD COLUMN y DEFAULT 7", "UPDATE a SET x = x + 1"}
	path := "file:" + file(t)
	for n := range len(steps) + 1 {
		db, empty, err := open(path, steps[:n])
		if err != nil || empty != (n < 2) {
			t.Fatal(n, empty, err)
		}
		if n == len(steps) {
			var x, y, version int
			if err := db.QueryRow("SELECT x, y, user_version FROM a, pragma_user_version").Scan(&x, &y, &version); x != 2 || y != 7 || version != n || err != nil {
				t.Error(x, y, version, err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := open(path, steps[:1]); !errors.Is(err, errNewer) {
		t.Errorf("an older program: %v", err)
	}
	if _, _, err := open(path, append(steps[:3:3], "INSERT INTO a VALUES (9, 9); NO SQL")); err == nil {
		t.Error("a wrong step is taken")
	}
	db, _, err := open(path, steps)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.QueryRow("SELECT count(*) FROM a").Scan(&n); n != 1 || err != nil {
		t.Errorf("half of a step was taken: %d rows, %v", n, err)
	}
}

// What others may have put there is left alone.
func TestUntrusted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes files of others, as root")
	}
	open := t.TempDir()
	ours := filled(t)
	for _, tt := range []struct {
		name, path string
		make       func(path string) error
		says       string
	}{
		{"a link", filepath.Join(t.TempDir(), "db"), func(p string) error { return os.Symlink(ours, p) }, "symbolic link"},
		{"a folder of everybody's", filepath.Join(open, "db"), func(string) error { return os.Chmod(open, 0o777) }, "others may write to " + open},
		{"a file of somebody's", filepath.Join(t.TempDir(), "db"), func(p string) error {
			return errors.Join(os.WriteFile(p, nil, 0o600), os.Chown(p, 1000, 1000))
		}, "belongs to user 1000"},
		{"a file of everybody's", filepath.Join(t.TempDir(), "db"), func(p string) error {
			return errors.Join(os.WriteFile(p, nil, 0o600), os.Chmod(p, 0o666))
		}, "everybody may write"},
		{"a device", "/dev/null", func(string) error { return nil }, "no regular file"},
		{"a folder", t.TempDir(), func(string) error { return nil }, "is a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.make(tt.path); err != nil {
				t.Fatal(err)
			}
			j, s, _ := running(t, Options{Path: tt.path})
			j.Seen(record("203.0.113.9", 23, 0))
			settled(t, j)
			if events, _, err := j.Events(t.Context(), store.Filter{}); len(events) != 1 || err != nil {
				t.Error(events, err)
			}
			if !strings.Contains(s.of(keyKept), tt.says) || !strings.Contains(s.of(keyKept), "kept in memory alone") {
				t.Errorf("said %q", s.of(keyKept))
			}
		})
	}
}

// smallDisk is a file system of its own.
func smallDisk(t *testing.T, options string) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system, as root")
	}
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// A disk that fills up: what comes is kept, as far as there is room, and written when
// there is space again.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t, "size=1m,mode=755")
	j, s, stop := running(t, Options{Path: filepath.Join(dir, "db")})
	j.Seen(record("203.0.113.1", 23, 0))
	settled(t, j)
	fill := filepath.Join(dir, "fill")
	for size := 1 << 20; size > 0; size /= 2 { // to the last byte
		f, err := os.OpenFile(fill, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(make([]byte, size))
		f.Close()
	}
	for i := range 3000 {
		b := ban(fmt.Sprintf("10.1.%d.%d/32", i/250, i%250), -time.Minute, time.Hour)
		j.Began(b, b.Prefix.Addr())
	}
	j.Seen(record("203.0.113.2", 23, time.Second))
	wait(t, "a word about it", func() bool { return strings.Contains(s.of(keyKept), "kept in memory, as far as there is room") })
	if st := j.Stats(); st.Failed == 0 || st.Waiting == 0 {
		t.Errorf("%+v", st)
	}
	if events, _, err := j.Events(t.Context(), store.Filter{}); len(events) == 0 || err != nil {
		t.Errorf("what was written is gone: %v, %v", events, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=32m"); err != nil {
		t.Fatal(err)
	}
	wait(t, "everything to be written", func() bool { return j.Stats().Waiting == 0 && s.of(keyKept) == "" })
	stop()
	j, _, _ = running(t, Options{Path: filepath.Join(dir, "db")})
	settled(t, j)
	sums, err := j.Sums(t.Context(), time.Time{}, time.Time{})
	if sums.Standing != 3000 || sums.Probes != 2 || err != nil {
		t.Errorf("%+v, %v", sums, err)
	}
}

// Somebody removes the file, or puts another in its place.
func TestRemoved(t *testing.T) {
	path := file(t)
	standing := []respond.InForce{{Ban: ban("203.0.113.9/32", 0, time.Hour), Host: netip.MustParseAddr("203.0.113.9")}}
	j, _, stop := running(t, Options{Path: path, Standing: func() []respond.InForce { return standing }})
	j.Seen(record("203.0.113.1", 23, 0))
	settled(t, j)
	for _, end := range []string{"", "-wal", "-shm"} {
		os.Remove(path + end)
	}
	j.Seen(record("203.0.113.2", 23, time.Second))
	settled(t, j)
	stop()
	j, _, _ = running(t, Options{Path: path})
	settled(t, j)
	if sums, err := j.Sums(t.Context(), time.Time{}, time.Time{}); sums.Standing != 1 || sums.Probes != 1 || err != nil {
		t.Errorf("%+v, %v", sums, err)
	}
}

func TestSet(t *testing.T) {
	old, next := file(t), file(t)
	standing := []respond.InForce{{Ban: ban("203.0.113.9/32", 0, time.Hour)}}
	j, s, stop := running(t, Options{Path: old, Standing: func() []respond.InForce { return standing }})
	j.Seen(record("203.0.113.1", 23, 0))
	j.Set(Options{Path: next, Keep: time.Hour * 1e4, Size: 8 << 20})
	wait(t, "another file", func() bool { _, err := os.Stat(next); return err == nil })
	j.Seen(record("203.0.113.2", 23, time.Second))
	settled(t, j)
	if n := standsIn(t, j); n != 1 {
		t.Errorf("%d bans stand", n)
	}
	j.Set(Options{Path: filepath.Join(t.TempDir(), "no", "\x00", "db"), Keep: time.Hour * 1e4, Size: 8 << 20})
	wait(t, "a word", func() bool { return strings.Contains(s.of(keyKept), "kept in memory alone") })
	j.Set(Options{Path: next, Keep: time.Hour * 1e4, Size: 8 << 20})
	wait(t, "the file again", func() bool { return s.of(keyKept) == "" })
	stop()
	for path, want := range map[string]string{old: "203.0.113.1", next: "203.0.113.2"} {
		j, _, stop := running(t, Options{Path: path})
		settled(t, j)
		if events, _, err := j.Events(t.Context(), store.Filter{}); len(events) != 1 || events[0].Source.String() != want || err != nil {
			t.Errorf("%s: %v, %v", path, events, err)
		}
		stop()
	}
}

// Two find at the same time that a file is damaged: it is set aside, the one that was
// begun in its place is not.
func TestDamagedForTwo(t *testing.T) {
	path := filled(t)
	j := Open(Options{Path: path, Keep: time.Hour, Size: 1 << 20, Say: new(said).say, Standing: func() []respond.InForce { return nil }})
	w := &writer{j: j, timer: time.NewTimer(time.Hour)}
	w.start(t.Context())
	j.broke(errDamaged)
	w.failed(t.Context(), errDamaged)
	select {
	case err := <-j.broken:
		w.failed(t.Context(), err)
	default:
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if aside, err := filepath.Glob(path + ".damaged-*"); len(aside) != 1 || err != nil {
		t.Error(aside, err)
	}
}
