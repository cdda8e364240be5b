package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file that cannot be read at the start leaves nobody ignored, and this is said; it is
// read as soon as it can be. Later, what was read before holds.
func TestIgnoreFileThatCannotBeRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "portsentry.ignore")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	f := &ignoreFile{path: path}
	if f.changed() || !strings.HasPrefix(f.problem, "nobody is ignored: ") || !strings.HasSuffix(f.problem, "is a directory") {
		t.Errorf("%q", f.problem)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("192.0.2.7"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !f.changed() || f.problem != "" || f.entries.Count() != 1 {
		t.Errorf("%q, %d entries", f.problem, f.entries.Count())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if f.changed() || !strings.HasPrefix(f.problem, "the ignore file is as it was before: ") || f.entries.Count() != 1 {
		t.Errorf("%q, %d entries", f.problem, f.entries.Count())
	}
}
