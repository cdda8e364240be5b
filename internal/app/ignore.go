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

// ignoreFiles are the administrator's ignore file and, where there is one, the
// portsentry.ignore.static beside it, from which Debian's package made the
// first at each start.
type ignoreFiles []*ignoreFile

// ignoreFile is one of them, read again when it changes.
type ignoreFile struct {
	path     string
	optional bool // nothing is amiss where it does not exist
	entries  config.Ignore
	problem  string // in a sentence; "": none

	modified time.Time
	size     int64
}

func openIgnore(path string) ignoreFiles {
	if path == "" {
		return nil
	}
	f := ignoreFiles{{path: path}, {path: path + ".static", optional: true}}
	f.changed()
	return f
}

// changed reads what is not as it was, and reports whether anything was.
func (f ignoreFiles) changed() bool {
	any := false
	for _, one := range f {
		any = one.changed() || any
	}
	return any
}

// entries are whom to ignore.
func (f ignoreFiles) entries() config.Ignore {
	var out config.Ignore
	for _, one := range f {
		out.Add(one.entries)
	}
	return out
}

// prefixes are those of them that need no look-up.
func (f ignoreFiles) prefixes() []netip.Prefix { return f.entries().Prefixes }

// place is the file and the line of an entry that is no network.
func (f ignoreFiles) place(entry string) (path string, line int) {
	for _, one := range f {
		if line = one.entries.Line(entry); line > 0 {
			return one.path, line
		}
	}
	return "", 0
}

// problem says what is wrong, "" for nothing.
func (f ignoreFiles) problem() string {
	var out string
	for _, one := range f {
		if one.problem != "" && out != "" {
			out += "\n"
		}
		out += one.problem
	}
	return out
}

// changed reads the file if it is not what it was, and reports whether it read
// it. Lines with a mistake are named and left out; the others hold.
func (f *ignoreFile) changed() bool {
	info, err := os.Stat(f.path)
	if err != nil {
		gone := !f.modified.IsZero()
		f.entries, f.modified, f.size = config.Ignore{}, time.Time{}, 0
		f.problem = fmt.Sprintf("nobody is ignored: %v", err)
		if errors.Is(err, fs.ErrNotExist) {
			f.problem = fmt.Sprintf("nobody is ignored: there is no %s (IGNORE_FILE)", f.path)
			if f.optional {
				f.problem = ""
			}
		}
		return gone
	}
	if info.ModTime().Equal(f.modified) && info.Size() == f.size {
		return false
	}
	entries, err := config.LoadIgnore(f.path)
	var mistakes *config.Mistakes
	switch {
	case err == nil:
		f.problem = ""
	case errors.As(err, &mistakes):
		f.problem = err.Error()
	case f.modified.IsZero():
		f.problem = fmt.Sprintf("nobody is ignored: %v", err)
		return false
	default:
		f.problem = fmt.Sprintf("the ignore file is as it was before: %v", err)
		return false
	}
	f.entries, f.modified, f.size = entries, info.ModTime(), info.Size()
	return true
}
