package hostsdeny

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errChanged: the file is not the one that was read any more.
var errChanged = errors.New("changed meanwhile")

// lock waits, at most five seconds, for the right to change path. The lock file
// lies beside it, is root's alone (whoever may open a file may lock it), and is
// gone when nobody needs it.
func lock(path string) (unlock func(), err error) {
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".portsentry-lock")
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			// The one before us may have taken the name away in between.
			var held, named unix.Stat_t
			if unix.Fstat(int(f.Fd()), &held) == nil && unix.Lstat(name, &named) == nil && held.Ino == named.Ino {
				return func() { os.Remove(name); f.Close() }, nil
			}
		}
		f.Close()
	}
	return nil, fmt.Errorf("%s: %w: %s is locked", path, ErrBusy, name)
}

// read returns the text of path and its state. A missing file is an empty one
// with the state nil.
func read(path string) ([]byte, *unix.Stat_t, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, nil, err
	}
	if len(text) > maxSize {
		return nil, nil, fmt.Errorf("%s: %w: larger than %d MiB", path, ErrUnsafe, maxSize>>20)
	}
	return text, &st, nil
}

// replace puts text in the place of path, whose state is still was, else
// nothing happens and the error is errChanged.
func replace(path string, text []byte, was *unix.Stat_t) (err error) {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text())
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(tmp)
		}
	}()
	if _, err := f.Write(text); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if was != nil {
		mode = fs.FileMode(was.Mode & 0o777)
		if err := f.Chown(int(was.Uid), int(was.Gid)); err != nil {
			return err
		}
		copyAttributes(path, int(f.Fd()))
	}
	if err := f.Chmod(mode); err != nil { // not the umask's doing
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if !unchanged(path, was) {
		return errChanged
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// unchanged reports whether path is as it was when it was read.
func unchanged(path string, was *unix.Stat_t) bool {
	var now unix.Stat_t
	err := unix.Lstat(path, &now)
	if was == nil {
		return errors.Is(err, unix.ENOENT)
	}
	return err == nil && now.Dev == was.Dev && now.Ino == was.Ino && now.Size == was.Size &&
		now.Mtim == was.Mtim && now.Ctim == was.Ctim
}

// copyAttributes copies the extended attributes (SELinux label, ACL) of path as
// far as the file system and our rights go; without them the file is as good as
// one that an editor saved.
func copyAttributes(path string, to int) {
	names := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		return
	}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if m, err := unix.Lgetxattr(path, name, value); err == nil {
			_ = unix.Fsetxattr(to, name, value[:m], 0)
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
