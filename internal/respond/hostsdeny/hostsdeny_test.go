package hostsdeny

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const line = "ALL: 10.77.0.2 : DENY"

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root: only files of root's are written")
	}
	t.Skip("needs root: only files of root's are written")
}

// file makes a hosts.deny with text in a directory of its own.
func file(t *testing.T, text string) File {
	t.Helper()
	needRoot(t)
	f := File{Path: filepath.Join(t.TempDir(), "hosts.deny")}
	if err := os.WriteFile(f.Path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f File) text(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func add(t *testing.T, f File, l string, want bool) {
	t.Helper()
	if added, err := f.Add(l); err != nil || added != want {
		t.Fatalf("Add(%q) = %v, %v; want %v", l, added, err, want)
	}
}

func remove(t *testing.T, f File, l string, want bool) {
	t.Helper()
	if removed, err := f.Remove(l); err != nil || removed != want {
		t.Fatalf("Remove(%q) = %v, %v; want %v", l, removed, err, want)
	}
}

func TestAddRemove(t *testing.T) {
	for _, tt := range []struct{ name, before, added, removed string }{
		{"empty", "", line + "\n", ""},
		{"comment", "# mine\n", "# mine\n" + line + "\n", "# mine\n"},
		{"no final newline", "sshd: ALL", "sshd: ALL\n" + line + "\n", "sshd: ALL\n"},
		{"CRLF", "sshd: ALL\r\n", "sshd: ALL\r\n" + line + "\r\n", "sshd: ALL\r\n"},
		{"open backslash", "sshd: a, \\\n", "sshd: a, \\\n\n" + line + "\n", "sshd: a, \\\n\n"},
		{"blank lines and odd bytes", "\n\n\x00\xff\t\n\n", "\n\n\x00\xff\t\n\n" + line + "\n", "\n\n\x00\xff\t\n\n"},
		{"a longer address", line[:len("ALL: 10.77.0.2")] + "2 : DENY\n", "ALL: 10.77.0.22 : DENY\n" + line + "\n", "ALL: 10.77.0.22 : DENY\n"},
		{"commented out", "#" + line + "\n", "#" + line + "\n" + line + "\n", "#" + line + "\n"},
		{"part of another rule", "sshd: a, \\\n" + line + "\n", "sshd: a, \\\n" + line + "\n" + line + "\n", "sshd: a, \\\n" + line + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := file(t, tt.before)
			add(t, f, line, true)
			if got := f.text(t); got != tt.added {
				t.Fatalf("added: %q, want %q", got, tt.added)
			}
			add(t, f, line, false)
			if got := f.text(t); got != tt.added {
				t.Fatalf("added twice: %q", got)
			}
			remove(t, f, line, true)
			if got := f.text(t); got != tt.removed {
				t.Fatalf("removed: %q, want %q", got, tt.removed)
			}
			remove(t, f, line, false)
		})
	}
}

// FuzzLines: adding keeps every byte in front and makes the line a rule of its
// own, once; removing takes out the rule and nothing else.
func FuzzLines(f *testing.F) {
	f.Add([]byte("sshd: ALL\r\n"))
	f.Add([]byte("a\\\n" + line))
	f.Add([]byte(line + "\r\n\\"))
	f.Fuzz(func(t *testing.T, text []byte) {
		rules := func(text []byte) (ours int, others []byte) {
			lines(text, func(l []byte, own bool) {
				if own && same(l, line) {
					ours++
				} else {
					others = append(others, l...)
				}
			})
			return ours, others
		}
		had, _ := rules(text)
		added := appendLine(bytes.Clone(text), line)
		if !bytes.HasPrefix(added, text) {
			t.Fatalf("%q became %q", text, added)
		}
		if n, _ := rules(added); had == 0 && n != 1 || had > 0 && n != had {
			t.Fatalf("%q has the rule %d times, before %d", added, n, had)
		}
		if !bytes.Equal(appendLine(bytes.Clone(added), line), added) {
			t.Fatalf("added twice to %q", text)
		}
		_, others := rules(added)
		removed := removeLine(added, line)
		if !bytes.Equal(removed, others) {
			t.Fatalf("%q without the rule is %q", added, removed)
		}
	})
}

func TestKeepsOwnerModeAttributes(t *testing.T) {
	f := file(t, "# mine\n")
	if err := errors.Join(os.Chown(f.Path, 0, 12345), os.Chmod(f.Path, 0o664)); err != nil {
		t.Fatal(err)
	}
	attr := unix.Setxattr(f.Path, "user.note", []byte("kept"), 0) == nil
	add(t, f, line, true)
	fi, err := os.Stat(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); fi.Mode().Perm() != 0o664 || st.Uid != 0 || st.Gid != 12345 {
		t.Errorf("mode %v, owner %d:%d", fi.Mode(), st.Uid, st.Gid)
	}
	if b := make([]byte, 10); attr {
		if n, err := unix.Getxattr(f.Path, "user.note", b); err != nil || string(b[:n]) != "kept" {
			t.Errorf("extended attribute: %q, %v", b[:max(n, 0)], err)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(f.Path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestMakesAMissingFile(t *testing.T) {
	needRoot(t)
	defer unix.Umask(unix.Umask(0o077))
	f := File{Path: filepath.Join(t.TempDir(), "hosts.deny")}
	remove(t, f, line, false)
	if _, err := os.Stat(f.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove made the file: %v", err)
	}
	add(t, f, line, true)
	if fi, err := os.Stat(f.Path); err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestFollowsRootsLink(t *testing.T) {
	f := file(t, "# real\n")
	link := File{Path: filepath.Join(t.TempDir(), "hosts.deny")}
	if err := os.Symlink(f.Path, link.Path); err != nil {
		t.Fatal(err)
	}
	add(t, link, line, true)
	if got := f.text(t); got != "# real\n"+line+"\n" {
		t.Errorf("the file the link names: %q", got)
	}
	if fi, err := os.Lstat(link.Path); err != nil || fi.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the link became %v, %v", fi.Mode(), err)
	}
}

func TestRefusesWhatOthersDecide(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(path string) error
	}{
		{"another's file", func(p string) error { return os.Chown(p, 1000, 0) }},
		{"everybody's file", func(p string) error { return os.Chmod(p, 0o646) }},
		{"everybody's directory", func(p string) error { return os.Chmod(filepath.Dir(p), 0o777|fs.ModeSticky) }},
		{"another's directory", func(p string) error { return os.Chown(filepath.Dir(p), 1000, 0) }},
		{"another's link", func(p string) error {
			return errors.Join(os.Rename(p, p+".real"), os.Symlink(p+".real", p), os.Lchown(p, 1000, 0))
		}},
		{"link to another's file", func(p string) error {
			return errors.Join(os.Rename(p, p+".real"), os.Symlink("hosts.deny.real", p), os.Chown(p+".real", 1000, 0))
		}},
		{"links in a circle", func(p string) error { return errors.Join(os.Remove(p), os.Symlink(p, p)) }},
		{"pipe", func(p string) error { return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o600)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := file(t, "# mine\n")
			if err := tt.prepare(f.Path); err != nil {
				t.Fatal(err)
			}
			if added, err := f.Add(line); added || !errors.Is(err, ErrUnsafe) {
				t.Errorf("Add = %v, %v", added, err)
			}
		})
	}
}

func TestRefusesWhatIsNotALine(t *testing.T) {
	f := file(t, "")
	for _, l := range []string{"", " ", "a\nb", "a\r", "a\x00", "a\\", strings.Repeat("a", maxLine+1)} {
		if added, err := f.Add(l); added || !errors.Is(err, ErrLine) {
			t.Errorf("Add(%q) = %v, %v", l, added, err)
		}
	}
}

// TestManyAtOnce: no line of anybody's is lost.
func TestManyAtOnce(t *testing.T) {
	f := file(t, "")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 10 {
				if _, err := f.Add(fmt.Sprintf("ALL: 10.%d.0.%d", i, j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := strings.Count(f.text(t), "\n"); n != 40 {
		t.Errorf("%d lines, want 40", n)
	}
	if left, _ := os.ReadDir(filepath.Dir(f.Path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestChangedMeanwhile(t *testing.T) {
	f := file(t, "# one\n")
	text, was, err := read(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Path, []byte("# another\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := replace(f.Path, append(text, "x\n"...), was); !errors.Is(err, errChanged) {
		t.Errorf("replace: %v", err)
	}
	if got := f.text(t); got != "# another\n" {
		t.Errorf("file %q", got)
	}
}
