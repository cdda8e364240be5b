// Package hostsdeny puts lines into the file of the TCP wrappers (hosts_access(5))
// and takes them out again. A line in, a file in which no other byte has changed.
package hostsdeny

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	maxLine = 1024     // of a line to add, bytes
	maxSize = 16 << 20 // of the file; a larger one is no hosts.deny
	retries = 5        // when somebody else writes the file at the same time
)

// Errors of Add and Remove.
var (
	// ErrUnsafe: somebody other than root decides what is in the file.
	ErrUnsafe = errors.New("not safe to write")
	// ErrBusy: the file is locked or changes all the time.
	ErrBusy = errors.New("busy")
	// ErrLine: the text is not one line.
	ErrLine = errors.New("KILL_HOSTS_DENY does not make one line")
)

// File is hosts.deny, or another file like it. Its methods may be called from
// several goroutines and several processes. Each replaces the file in one step,
// with the owner, mode and extended attributes it had: a reader sees all of the
// old file or all of the new one.
type File struct {
	Path string
}

// Add puts line at the end of the file, unless the file has it already. A file
// that does not exist is made, mode 0644.
func (f File) Add(line string) (added bool, err error) {
	return f.change(line, appendLine)
}

// Remove takes every line identical to line out of the file.
func (f File) Remove(line string) (removed bool, err error) {
	return f.change(line, removeLine)
}

// change applies edit to the file. No change to the text is no write.
func (f File) change(line string, edit func(text []byte, line string) []byte) (bool, error) {
	if err := checkLine(line); err != nil {
		return false, err
	}
	path, err := resolve(f.Path)
	if err != nil {
		return false, err
	}
	unlock, err := lock(path)
	if err != nil {
		return false, err
	}
	defer unlock()
	// Others (an editor, another banning tool) know nothing of our lock: what
	// they wrote while we did is not to be lost.
	for range retries {
		text, was, err := read(path)
		if err != nil {
			return false, err
		}
		changed := edit(text, line)
		if bytes.Equal(changed, text) {
			return false, nil
		}
		err = replace(path, changed, was)
		if !errors.Is(err, errChanged) {
			return err == nil, err
		}
	}
	return false, fmt.Errorf("%s: %w: it keeps changing", path, ErrBusy)
}

func checkLine(line string) error {
	switch {
	case strings.TrimSpace(line) == "", len(line) > maxLine, strings.ContainsAny(line, "\r\n\x00"):
		return ErrLine
	case strings.HasSuffix(line, `\`):
		return fmt.Errorf("%w: a line that ends in a backslash goes on in the next", ErrLine)
	}
	return nil
}

// resolve finds the file that path means. A symbolic link is followed when root
// made it, so that the file it names is replaced and not the link. Each step
// must be safe: nobody but root may decide what we read or where we write.
func resolve(path string) (string, error) {
	for range 8 {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", err
		}
		fi, err := os.Lstat(dir)
		if err != nil {
			return "", err
		}
		if err := rootsAlone(dir, fi); err != nil {
			return "", err
		}
		path = filepath.Join(dir, filepath.Base(path))
		fi, err = os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return path, nil
		case err != nil:
			return "", err
		case fi.Mode().IsRegular():
			return path, rootsAlone(path, fi)
		case fi.Mode().Type() != fs.ModeSymlink:
			return "", fmt.Errorf("%s: %w: it is no regular file", path, ErrUnsafe)
		case fi.Sys().(*syscall.Stat_t).Uid != 0:
			return "", fmt.Errorf("%s: %w: the symbolic link is not root's", path, ErrUnsafe)
		}
		to, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(dir, to)
		}
		path = to
	}
	return "", fmt.Errorf("%s: %w: too many symbolic links", path, ErrUnsafe)
}

// rootsAlone checks that root owns the file or directory and not everybody may
// write to it.
func rootsAlone(path string, fi fs.FileInfo) error {
	if uid := fi.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		return fmt.Errorf("%s: %w: it belongs to user %d; try chown root", path, ErrUnsafe, uid)
	}
	if fi.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("%s: %w: everybody may write to it; try chmod o-w", path, ErrUnsafe)
	}
	return nil
}
