package textfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// record2 is what PortSentry 2.x wrote about hosts.
func record2(hosts ...string) []byte {
	var b []byte
	for _, h := range hosts {
		a := netip.MustParseAddr(h)
		family := uint16(unix.AF_INET)
		if a.Is6() {
			family = unix.AF_INET6
		}
		b = binary.NativeEndian.AppendUint16(b, family)
		b = append(b, a.AsSlice()...)
	}
	return b
}

func TestIsBinary(t *testing.T) {
	for _, tt := range []struct {
		name string
		text []byte
		want bool
	}{
		{"empty", nil, false},
		{"IPv4", record2("10.77.0.2"), true},
		{"IPv6", record2("fd77::3"), true},
		{"damaged behind a record", append(record2("10.77.0.2"), "\xff\xff\xff"...), true},
		{"half a record", record2("10.77.0.2")[:5], false},
		{"the other byte order", []byte{0, 2, 10, 77, 0, 2}, false},
		{"text", []byte(line2), false},
		{"blank line first", []byte("\n" + line2), false},
		{"zeros behind a newline", append([]byte("\n"), make([]byte, 100)...), false},
		{"zeros", make([]byte, 4096), false},
		{"text behind a record", append(record2("10.77.0.2"), "\n"+line2...), false},
		{"a record behind text", append([]byte(line2), record2("10.77.0.2")...), false},
		{"no host", record2("224.0.0.1"), false},
	} {
		if got := isBinary(tt.text); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestBlockedConverts(t *testing.T) {
	needRoot(t, "writes a file that must be root's")
	since := time.Unix(1790000000, 0)
	good := record2("10.77.0.2", "fd77::3", "10.77.0.2", "::ffff:10.77.0.4")
	for _, tt := range []struct {
		name  string
		data  []byte
		hosts string
		says  []string
	}{
		{"whole", good, "10.77.0.2 fd77::3 10.77.0.4", []string{"3 hosts were taken over"}},
		{"torn", append(slices.Clone(good), record2("10.77.0.5")[:3]...), "10.77.0.2 fd77::3 10.77.0.4",
			[]string{"the last 3 bytes, from byte 48 on, are damaged", "3 hosts were taken over"}},
		{"garbage behind", append(record2("10.77.0.2"), "garbage\x02\x00"...), "10.77.0.2",
			[]string{"the last 9 bytes, from byte 6 on, are damaged", "1 hosts were taken over"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "portsentry.blocked")
			taken := path + ".2x" // by an original of long ago
			if err := errors.Join(os.WriteFile(path, tt.data, 0o644), os.Chtimes(path, since, since), os.WriteFile(taken, []byte("old"), 0o600)); err != nil {
				t.Fatal(err)
			}
			b, entries, warnings := OpenBlocked(path)
			if got := hostsOf(entries); got != tt.hosts {
				t.Errorf("hosts %q", got)
			}
			for _, e := range entries {
				if !e.Since.Equal(since) {
					t.Errorf("%s since %v", e.Host, e.Since)
				}
			}
			if len(warnings) != len(tt.says) {
				t.Errorf("warnings %q", warnings)
			}
			for i, want := range tt.says {
				if !strings.Contains(warnings[i], want) {
					t.Errorf("warning %q, want %q", warnings[i], want)
				}
			}
			if !strings.Contains(warnings[len(warnings)-1], "kept as "+path+".2x.1") {
				t.Errorf("warning %q does not name the original", warnings[len(warnings)-1])
			}
			if got := content(t, path+".2x.1"); got != string(tt.data) {
				t.Errorf("the original became %q", got)
			}
			if got := content(t, taken); got != "old" {
				t.Errorf("%s became %q", taken, got)
			}
			if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o644 {
				t.Errorf("mode %v", fi.Mode())
			}

			// It is a file like any other from now on, and at the next start.
			b.Remove(addr2)
			b.Add(entry(netip.MustParseAddr("10.77.0.9")))
			if lifted := sync1(t, b); lifted != nil {
				t.Errorf("lifted %v", lifted)
			}
			_, entries, warnings = OpenBlocked(path)
			want := strings.TrimSpace(strings.TrimPrefix(tt.hosts, "10.77.0.2") + " 10.77.0.9")
			if got := hostsOf(entries); got != want || warnings != nil {
				t.Errorf("read again: %q, want %q, %q", got, want, warnings)
			}
			if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 3 {
				t.Errorf("in the directory: %v", left)
			}
		})
	}
}

func hostsOf(entries []BlockedEntry) string {
	var hosts []string
	for _, e := range entries {
		hosts = append(hosts, e.Host.String())
	}
	return strings.Join(hosts, " ")
}

// A start that was cut off between keeping the original and replacing it is
// continued, without one more copy.
func TestBlockedConvertsAfterACutOffStart(t *testing.T) {
	needRoot(t, "writes a file that must be root's")
	path := filepath.Join(t.TempDir(), "blocked")
	if err := errors.Join(os.WriteFile(path, record2("10.77.0.2"), 0o600), os.Link(path, path+".2x")); err != nil {
		t.Fatal(err)
	}
	_, entries, warnings := OpenBlocked(path)
	if len(entries) != 1 || len(warnings) != 1 || !strings.HasSuffix(warnings[0], path+".2x") {
		t.Errorf("%v, %q", entries, warnings)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 2 {
		t.Errorf("in the directory: %v", left)
	}
	if got := content(t, path+".2x"); got != string(record2("10.77.0.2")) {
		t.Errorf("the original became %q", got)
	}
}

// Where it cannot be converted, its hosts count and nothing is written.
func TestBlockedCannotConvert(t *testing.T) {
	dir := smallDisk(t, "size=64k,mode=755")
	path := filepath.Join(dir, "blocked")
	if err := errors.Join(os.WriteFile(path, record2("10.77.0.2"), 0o600), unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	b, entries, warnings := OpenBlocked(path)
	if len(entries) != 1 || len(warnings) != 1 || !strings.Contains(warnings[0], ErrBinary.Error()) || !strings.Contains(warnings[0], "read-only") {
		t.Errorf("%v, %q", entries, warnings)
	}
	b.Add(entry(addr3))
	sync1(t, b)
	if got := content(t, path); got != string(record2("10.77.0.2")) {
		t.Errorf("the file became %q", got)
	}
}

// Somebody puts a file of 2.x in our place while we run.
func TestBlockedBecomesBinary(t *testing.T) {
	needRoot(t, "writes a file that must be root's")
	path := filepath.Join(t.TempDir(), "blocked")
	b := open(t, path)
	b.Add(entry(addr2))
	sync1(t, b)
	if err := os.WriteFile(path, record2("10.77.0.9"), 0o640); err != nil {
		t.Fatal(err)
	}
	sync1(t, b)
	if lifted, err := b.Sync(); !errors.Is(err, ErrBinary) || lifted != nil {
		t.Errorf("lifted %v, %v", lifted, err)
	}
	if got := content(t, path); got != string(record2("10.77.0.9")) {
		t.Errorf("the file became %q", got)
	}
}

func TestBlockedName(t *testing.T) {
	if got := BlockedName("/var/lib/portsentry/portsentry.blocked", "stcp"); got != "/var/lib/portsentry/portsentry.blocked.stcp" {
		t.Error(got)
	}
}

func TestParse2xIsBounded(t *testing.T) {
	var data []byte
	for i := range maxEntries + 5 {
		data = append(data, record2(fmt.Sprintf("%d.%d.%d.1", 1+i>>16, i>>8&255, i&255))...)
	}
	entries, warnings := parse2x(data, time.Unix(1, 0))
	if len(entries) != maxEntries || len(warnings) != 1 || !strings.Contains(warnings[0], "5 hosts beyond") {
		t.Errorf("%d entries, %q", len(entries), warnings)
	}
}

// FuzzParse2x: what is taken for a file of 2.x begins with the records of what
// is read of it, holds no line of ours, and its hosts survive as text. Text that
// we write is never taken for one.
func FuzzParse2x(f *testing.F) {
	f.Add(record2("10.77.0.2", "fd77::3"))
	f.Add(append(record2("10.77.0.2"), 2, 0, 10))
	f.Add([]byte("\n\x00" + line2))
	f.Add([]byte(line2))
	f.Fuzz(func(t *testing.T, data []byte) {
		if !isBinary(data) {
			return
		}
		if lines, _ := parseBlocked(data); len(lines) > 0 {
			t.Fatalf("%q holds lines of text", data)
		}
		entries, warnings := parse2x(data, time.Unix(1790000000, 0))
		if len(entries) == 0 || len(warnings) > 2 || !bytes.HasPrefix(data, record2(entries[0].Host.String())) && !entries[0].Host.Is4() {
			t.Fatalf("%q read as %v, %q", data, entries, warnings)
		}
		var text []byte
		for i := range entries {
			text = appendEntry(text, &entries[i])
		}
		again, warnings := parseBlocked(text)
		if isBinary(text) || len(warnings) > 0 || hostsOf(again) != hostsOf(entries) {
			t.Fatalf("%v became %v, %q", entries, again, warnings)
		}
	})
}
