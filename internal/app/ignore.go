package app

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"portsentry/internal/config"
)

// ignoreFile is the administrator's ignore file, read again when it changes.
type ignoreFile struct {
	path     string
	prefixes []netip.Prefix
	problem  string // in a sentence; "": none

	modified time.Time
	size     int64
}

func openIgnore(path string) *ignoreFile {
	f := &ignoreFile{path: path}
	f.changed()
	return f
}

// changed reads the file if it is not what it was, and reports whether it read
// it. Lines with a mistake are named and left out; the others hold.
func (f *ignoreFile) changed() bool {
	if f.path == "" {
		return false
	}
	info, err := os.Stat(f.path)
	if err != nil {
		gone := !f.modified.IsZero()
		f.prefixes, f.modified, f.size = nil, time.Time{}, 0
		f.problem = fmt.Sprintf("nobody is ignored: %v", err)
		if errors.Is(err, fs.ErrNotExist) {
			f.problem = fmt.Sprintf("nobody is ignored: there is no %s (IGNORE_FILE)", f.path)
		}
		return gone
	}
	if info.ModTime().Equal(f.modified) && info.Size() == f.size {
		return false
	}
	f.modified, f.size = info.ModTime(), info.Size()
	prefixes, err := config.LoadIgnore(f.path)
	var mistakes *config.Mistakes
	switch {
	case err == nil:
		f.problem = ""
	case errors.As(err, &mistakes):
		f.problem = err.Error()
	default:
		f.problem = fmt.Sprintf("the ignore file is as it was before: %v", err)
		return false
	}
	f.prefixes = prefixes
	return true
}
