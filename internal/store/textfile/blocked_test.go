package textfile

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/decode"
)

var (
	addr2 = netip.MustParseAddr("10.77.0.2")
	addr3 = netip.MustParseAddr("fd77::3")
)

const line2 = "1795218968 - 11/20/2026 23:56:08 Host: 10.77.0.2/10.77.0.2 Port: 1 TCP Blocked\n"

func entry(a netip.Addr) BlockedEntry {
	return BlockedEntry{Since: time.Unix(1795218968, 0), Host: a, Port: 1, Proto: decode.ProtoTCP}
}

func sync1(t *testing.T, b *Blocked) []netip.Addr {
	t.Helper()
	lifted, err := b.Sync()
	if err != nil {
		t.Fatal(err)
	}
	return lifted
}

func open(t *testing.T, path string) *Blocked {
	t.Helper()
	b, _, warnings := OpenBlocked(path)
	if warnings != nil {
		t.Fatal(warnings)
	}
	return b
}

func TestEntryLine(t *testing.T) {
	e := BlockedEntry{Since: time.Unix(1795218968, 0), Name: "scan.example", Host: addr3, Port: 65535, Proto: decode.ProtoUDP}
	got := string(appendEntry(nil, &e))
	want := "1795218968 - " + time.Unix(1795218968, 0).Format("01/02/2006 15:04:05") + " Host: scan.example/fd77::3 Port: 65535 UDP Blocked\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// fail2ban's expression for the files of 1.x.
	if !regexp.MustCompile(`/fd77::3 Port: [0-9]+ (TCP|UDP) Blocked$`).MatchString(strings.TrimSpace(got)) {
		t.Error("fail2ban's filter does not match")
	}
	for _, name := range []string{"a b", "x\ny", "10.77.0.2/x", "é", strings.Repeat("a", 256)} {
		e.Name = name
		if got := string(appendEntry(nil, &e)); !strings.Contains(got, " Host: fd77::3/fd77::3 ") || strings.Count(got, "\n") != 1 {
			t.Errorf("name %q written: %q", name, got)
		}
	}
}

func TestParseBlocked(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		hosts      string
		warnings   int
	}{
		{"1.2's own line", line2, "10.77.0.2", 0},
		{"CRLF, no final newline", strings.TrimSpace(line2) + "\r\n" + strings.Replace(strings.TrimSpace(line2), "/10.77.0.2", "/fd77::3", 1), "10.77.0.2 fd77::3", 0},
		{"comments and blank lines", "# mine\n\n  \n" + line2, "10.77.0.2", 0},
		{"one line a host", line2 + line2, "10.77.0.2", 0},
		{"slash in a name", strings.Replace(line2, "10.77.0.2/", "a/b/", 1), "10.77.0.2", 0},
		{"mapped address", strings.Replace(line2, "/10.77.0.2", "/::ffff:10.77.0.2", 1), "10.77.0.2", 0},
		{"garbage between", "x\x00\xff\n" + line2 + "Host: \n", "10.77.0.2", 2},
		{"no address", strings.Replace(line2, "/10.77.0.2", "/10.77.0.256", 1), "", 1},
		{"zone", strings.Replace(line2, "/10.77.0.2", "/fe80::1%eth0", 1), "", 1},
		{"port too large", strings.Replace(line2, "Port: 1", "Port: 65536", 1), "", 1},
		{"not blocked", strings.Replace(line2, "Blocked", "Freed", 1), "", 1},
		{"many bad lines", strings.Repeat("bad\n", 100), "", maxWarnings + 1},
	} {
		entries, warnings := parseBlocked([]byte(tt.text))
		var hosts []string
		for _, e := range entries {
			hosts = append(hosts, e.Host.String())
		}
		if got := strings.Join(hosts, " "); got != tt.hosts || len(warnings) != tt.warnings {
			t.Errorf("%s: %q, %q", tt.name, got, warnings)
		}
	}
}

func TestParseBlockedIsBounded(t *testing.T) {
	var text []byte
	for i := range maxEntries + 5 {
		text = fmt.Appendf(text, "1 - x Host: a/%d.%d.%d.1 Port: 1 TCP Blocked\n", 1+i>>16, i>>8&255, i&255)
	}
	entries, warnings := parseBlocked(text)
	if len(entries) != maxEntries || len(warnings) != 1 {
		t.Errorf("%d entries, %q", len(entries), warnings)
	}
}

// FuzzParseBlocked: whatever the bytes, what is read is written and read back
// the same, warnings are few and short, and one line.
func FuzzParseBlocked(f *testing.F) {
	f.Add([]byte(line2))
	f.Add([]byte("\x02\x00\x0a\x4d\x00\x02"))
	f.Add([]byte("1 - 1 Host: a/b/1.2.3.4 Port: 1 UDP Blocked\r\n#\n\n - Host: / Port: "))
	f.Add([]byte("1 - Host: /::ffff:1.2.3.4 Port: 00 TCP Blocked"))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, warnings := parseBlocked(text)
		if len(warnings) > maxWarnings+2 {
			t.Fatalf("%d warnings", len(warnings))
		}
		for _, w := range warnings {
			if len(w) > 400 || strings.ContainsAny(w, "\n\r\x00\x1b") {
				t.Fatalf("warning %q", w)
			}
		}
		var written []byte
		for i := range entries {
			written = appendEntry(written, &entries[i])
		}
		again, warnings := parseBlocked(written)
		if len(warnings) > 0 {
			t.Fatalf("%q: %q", written, warnings)
		}
		for i := range entries {
			if len(again) != len(entries) || again[i].Host != entries[i].Host || again[i].Port != entries[i].Port ||
				again[i].Proto != entries[i].Proto || !again[i].Since.Equal(entries[i].Since) {
				t.Fatalf("%+v became %+v", entries[i], again)
			}
		}
	})
}

func TestBlockedAddRemove(t *testing.T) {
	needRoot(t, "writes a file that must be root's")
	path := filepath.Join(t.TempDir(), "sub", "portsentry.blocked")
	b := open(t, path)
	b.Add(entry(addr2))
	b.Add(entry(addr2))
	b.Add(entry(addr3))
	if lifted := sync1(t, b); lifted != nil {
		t.Errorf("lifted %v", lifted)
	}
	b.Add(entry(addr2))
	sync1(t, b)
	text := content(t, path)
	if strings.Count(text, "\n") != 2 {
		t.Errorf("file %q", text)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", fi.Mode())
	}

	b.Remove(addr2)
	b.Add(entry(netip.MustParseAddr("10.77.0.4")))
	b.Add(entry(netip.MustParseAddr("10.77.0.5")))
	b.Remove(netip.MustParseAddr("10.77.0.5")) // before it was ever written
	if lifted := sync1(t, b); lifted != nil {
		t.Errorf("lifted %v", lifted)
	}
	_, entries, _ := OpenBlocked(path)
	if len(entries) != 2 || entries[0].Host != addr3 || entries[1].Host.String() != "10.77.0.4" {
		t.Errorf("entries %v", entries)
	}
	// Nothing but the file lies in the directory.
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestBlockedKeepsWhatItDoesNotUnderstand(t *testing.T) {
	needRoot(t, "writes a file that must be root's")
	path := filepath.Join(t.TempDir(), "blocked")
	odd := "# keep\r\n\xff\x00garbage\n\n"
	if err := os.WriteFile(path, []byte(odd+line2+"half"), 0o604); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 0, 12345); err != nil {
		t.Fatal(err)
	}
	b, entries, warnings := OpenBlocked(path)
	if len(entries) != 1 || len(warnings) != 2 || !strings.Contains(warnings[0], "line 2") {
		t.Errorf("%v, %q", entries, warnings)
	}
	b.Remove(addr2)
	b.Add(entry(addr3))
	sync1(t, b)
	if got := content(t, path); !strings.HasPrefix(got, odd+"half\n1795218968 - ") {
		t.Errorf("got %q", got)
	}
	fi, _ := os.Stat(path)
	if st := fi.Sys().(*syscall.Stat_t); fi.Mode().Perm() != 0o604 || st.Gid != 12345 {
		t.Errorf("mode %v, group %d", fi.Mode(), st.Gid)
	}
}

func TestBlockedEditLifts(t *testing.T) {
	needRoot(t, "writes a file that must be root's")
	for _, how := range []string{"in place", "by rename", "deleted"} {
		t.Run(how, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "blocked")
			b := open(t, path)
			b.Add(entry(addr2))
			b.Add(entry(addr3))
			sync1(t, b)
			lines := strings.SplitAfter(content(t, path), "\n")
			want := []netip.Addr{addr2}
			var err error
			switch how {
			case "in place":
				err = os.WriteFile(path, []byte(lines[1]), 0o640)
			case "by rename":
				err = errors.Join(os.WriteFile(path+"~", []byte(lines[1]), 0o640), os.Rename(path+"~", path))
			case "deleted":
				err = os.Remove(path)
				want = append(want, addr3)
			}
			if err != nil {
				t.Fatal(err)
			}
			if lifted := sync1(t, b); lifted != nil {
				t.Errorf("lifted %v before the file was seen to rest", lifted)
			}
			lifted := sync1(t, b)
			slices.SortFunc(lifted, netip.Addr.Compare)
			if !reflect.DeepEqual(lifted, want) {
				t.Errorf("lifted %v, want %v", lifted, want)
			}
			if lifted := sync1(t, b); lifted != nil {
				t.Errorf("lifted again: %v", lifted)
			}
			b.Add(entry(addr2)) // hit again: banned and listed again
			sync1(t, b)
			if !strings.Contains(content(t, path), "/10.77.0.2 ") {
				t.Errorf("not listed again: %q", content(t, path))
			}
		})
	}
}

func TestBlockedUntrusted(t *testing.T) {
	needRoot(t, "makes files of other users")
	for _, tt := range []struct {
		name    string
		prepare func(dir, path string) error
		entries int
		want    error
	}{
		{"another's file", func(_, path string) error { return os.Chown(path, 1000, 0) }, 1, ErrUntrusted},
		{"everybody's file", func(_, path string) error { return os.Chmod(path, 0o666) }, 1, ErrUntrusted},
		{"in /tmp", func(dir, _ string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, 1, ErrUntrusted},
		{"another's directory", func(dir, _ string) error { return os.Chown(dir, 1000, 0) }, 1, ErrUntrusted},
		{"symbolic link", func(_, path string) error {
			return errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path))
		}, 0, ErrUntrusted},
		{"pipe", func(_, path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) }, 0, ErrUntrusted},
		{"2.x's own place", func(dir, path string) error {
			return errors.Join(os.WriteFile(path, record2("10.77.0.2"), 0o600), os.Chmod(dir, 0o777|os.ModeSticky))
		}, 1, ErrUntrusted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			path := filepath.Join(dir, "blocked")
			if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, []byte(line2), 0o600), tt.prepare(dir, path)); err != nil {
				t.Fatal(err)
			}
			var before unix.Stat_t
			unix.Lstat(path, &before)
			b, entries, warnings := OpenBlocked(path)
			if len(entries) != tt.entries || len(warnings) != 1 || !strings.Contains(warnings[0], tt.want.Error()) {
				t.Errorf("%d entries, warnings %q", len(entries), warnings)
			}
			b.Add(entry(addr3))
			b.Remove(addr2)
			sync1(t, b)
			sync1(t, b)
			var after unix.Stat_t
			unix.Lstat(path, &after)
			if stampOf(&before) != stampOf(&after) {
				t.Error("the file was touched")
			}
		})
	}
}

func TestBlockedBecomesUntrusted(t *testing.T) {
	needRoot(t, "makes files of other users")
	path := filepath.Join(t.TempDir(), "blocked")
	b := open(t, path)
	b.Add(entry(addr2))
	sync1(t, b)
	if err := errors.Join(os.WriteFile(path, nil, 0), os.Chown(path, 1000, 0)); err != nil {
		t.Fatal(err)
	}
	sync1(t, b)
	if lifted, err := b.Sync(); !errors.Is(err, ErrUntrusted) || lifted != nil {
		t.Errorf("lifted %v, %v", lifted, err)
	}
	if lifted, err := b.Sync(); !errors.Is(err, ErrUntrusted) || lifted != nil {
		t.Errorf("it is over: %v, %v", lifted, err)
	}
}

func TestBlockedIsBounded(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "blocked"))
	a := netip.MustParseAddr("10.0.0.0")
	for range maxEntries {
		if err := b.Add(entry(a)); err != nil {
			t.Fatal(err)
		}
		a = a.Next()
	}
	if err := b.Add(entry(a)); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	b.Remove(netip.MustParseAddr("10.0.0.0"))
	if err := b.Add(entry(a)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestBlockedFullDisk: either whole lines or none, and all of them later.
func TestBlockedFullDisk(t *testing.T) {
	dir := smallDisk(t, "size=8k,mode=755")
	path := filepath.Join(dir, "blocked")
	b := open(t, path)
	a := netip.MustParseAddr("10.0.0.0")
	said := 0
	const n = 200
	for range n {
		b.Add(entry(a))
		a = a.Next()
		if _, err := b.Sync(); err != nil {
			said++
		}
	}
	if text := content(t, path); said == 0 || said == n || !strings.HasSuffix(text, "Blocked\n") {
		t.Errorf("said %d times; the file ends in %q", said, text[max(0, len(text)-40):])
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	sync1(t, b)
	if _, entries, warnings := OpenBlocked(path); len(entries) != n || warnings != nil {
		t.Errorf("%d entries, %q", len(entries), warnings)
	}
}
