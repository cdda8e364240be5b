package proc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrRunning says that another process holds the pid file.
var ErrRunning = errors.New("portsentry is already running")

// pidTries is how often a file that vanishes while we open it is opened again.
const pidTries = 10

// PIDFile is a file with the number of this process, locked while the process
// lives. A file without a lock is what a crash left behind.
type PIDFile struct {
	file *os.File
	path string
}

// WritePID makes the file, or takes over one that nobody holds. It is an error
// that wraps ErrRunning when somebody does, and an error when what is there is
// no plain file of ours alone: we may be root in a folder that others write to.
func WritePID(path string) (*PIDFile, error) {
	path, err := filepath.Abs(path) // it is removed from another directory, maybe
	if err != nil {
		return nil, fmt.Errorf("pid file: %w", err)
	}
	for range pidTries {
		f, err := openPID(path)
		if errors.Is(err, errVanished) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("pid file %s: %w", path, err)
		}
		p := &PIDFile{file: f, path: path}
		if err := p.write(); err != nil {
			return nil, errors.Join(fmt.Errorf("pid file: %w", err), p.Remove())
		}
		return p, nil
	}
	return nil, fmt.Errorf("pid file %s: removed again and again by somebody else", path)
}

// errVanished: the file we have locked is not the one with this name any more.
var errVanished = errors.New("removed meanwhile")

// openPID opens and locks the file.
func openPID(path string) (_ *os.File, err error) {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(path, flags, 0o644)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, errors.New("is a symbolic link; remove it")
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w; its folder must exist: mkdir %s", unix.ENOENT, filepath.Dir(path))
	case err != nil:
		var p *fs.PathError
		if errors.As(err, &p) {
			err = p.Err // the caller names the file
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1 || int(st.Uid) != unix.Geteuid() {
		return nil, errors.New("is there and no plain file of ours alone; remove it")
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK) && lockedByStranger(&st):
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, errVanished // the next one is ours
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, running(f)
	case err != nil:
		return nil, fmt.Errorf("lock: %w", err)
	}
	switch named, err := names(path, f); {
	case err != nil:
		return nil, err
	case !named:
		return nil, errVanished
	}
	return f, nil
}

// lockedByStranger reports whether the lock on the file belongs to another user:
// flock(2) asks for no more than the right to read. So does one that outlives the
// process which took it, for ours never do. In doubt it is one of ours.
func lockedByStranger(st *unix.Stat_t) bool {
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return false
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) {
		// proc_locks(5): number, kind, enforcement, access, process, file
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err != nil || pid <= 0 { // of another namespace
			return false
		}
		status, err := os.ReadFile("/proc/" + f[4] + "/status") // the owner of /proc/PID is not always the process's
		return errors.Is(err, fs.ErrNotExist) || err == nil && !strings.Contains(string(status), fmt.Sprintf("\nUid:\t%d\t", unix.Geteuid()))
	}
	return false
}

// running is the error about the process whose number is in f.
func running(f *os.File) error {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	pid, bad := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || bad != nil {
		return ErrRunning // it is about to write
	}
	return fmt.Errorf("%w with pid %d", ErrRunning, pid)
}

// names reports whether path still names the file f.
func names(path string, f *os.File) (bool, error) {
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	ours, err2 := f.Stat()
	if err := errors.Join(err, err2); err != nil {
		return false, err
	}
	return os.SameFile(there, ours), nil
}

func (p *PIDFile) write() error {
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := p.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Remove takes the file away, unless somebody has put another in its place, and
// lets go of it.
func (p *PIDFile) Remove() error {
	ours, err := names(p.path, p.file)
	if err == nil && ours {
		err = os.Remove(p.path) // while we hold the lock: nobody can take it over
	}
	return errors.Join(err, p.file.Close())
}
