package textfile

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// errMoved: the file is not the one we know any more.
var errMoved = errors.New("the blocked file changed meanwhile")

// lines returns the lines to add, behind a newline when what is before them
// does not end in one.
func (b *Blocked) lines(last byte) []byte {
	var out []byte
	if last != '\n' {
		out = append(out, '\n')
	}
	for i := range b.add {
		out = appendEntry(out, &b.add[i])
	}
	return out
}

// written notes that the lines to add are in the file, and its new state.
func (b *Blocked) written(at stamp) {
	for _, e := range b.add {
		b.hosts[e.Host] = true
	}
	b.add = nil
	b.seen = at
}

// append writes the lines to add at the end of the file, or none of them.
func (b *Blocked) append() error {
	f, err := os.OpenFile(b.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if b.seen != (stamp{}) && stampOf(&st) != b.seen || b.seen == (stamp{}) && st.Size != 0 {
		return errMoved
	}
	last := [1]byte{'\n'}
	if st.Size > 0 {
		if _, err := f.ReadAt(last[:], st.Size-1); err != nil {
			return err
		}
	}
	if _, err := f.Write(b.lines(last[0])); err != nil {
		// A full disk took some of it. Half a line is worse than none.
		return errors.Join(err, f.Truncate(st.Size), b.resee(f))
	}
	if err := b.resee(f); err != nil {
		return err
	}
	b.written(b.seen)
	return nil
}

// resee takes the state of f as the file's.
func (b *Blocked) resee(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	b.seen = stampOf(&st)
	return nil
}

// rewrite replaces the file by one without the lines that go, with those to
// add, and with everything else as it was, owner and mode too.
func (b *Blocked) rewrite() error {
	text, at, err := b.read()
	if err != nil {
		return err
	}
	if at != b.seen {
		return errMoved
	}
	out := make([]byte, 0, len(text))
	for line := range bytes.Lines(text) {
		if e, ok := parseEntry(bytes.TrimSpace(line)); ok {
			if _, goes := b.gone[e.Host]; goes {
				continue
			}
		}
		out = append(out, line...)
	}
	if len(b.add) > 0 {
		last := byte('\n')
		if len(out) > 0 {
			last = out[len(out)-1]
		}
		out = append(out, b.lines(last)...)
	}

	if err := b.replace(out); err != nil {
		return err
	}
	clear(b.gone)
	b.written(b.seen)
	return nil
}

// replace puts a file of text in the place of the one we know, in one step.
func (b *Blocked) replace(text []byte) (err error) {
	tmp := filepath.Join(filepath.Dir(b.path), "."+filepath.Base(b.path)+"."+rand.Text())
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
	if err := likeOld(f, b.path); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if now, err := look(b.path); err != nil || now != b.seen {
		return errors.Join(errMoved, err)
	}
	if err := os.Rename(tmp, b.path); err != nil {
		return err
	}
	return b.resee(f) // the rename changed the ctime
}

// likeOld gives f the owner and mode of the file at path. Without the right to
// give files away, the group stays ours.
func likeOld(f *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); errors.Is(err, unix.ENOENT) {
		return f.Chmod(0o640)
	} else if err != nil {
		return err
	}
	if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return f.Chmod(fs.FileMode(st.Mode & 0o777))
}
