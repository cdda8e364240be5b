package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FileWatch says when files may have changed, without looking at them while
// they do not. It watches their folders (inotify(7)), since editors replace a
// file rather than write into it.
type FileWatch struct {
	events  *os.File
	names   map[string]bool
	changed chan struct{}
}

// WatchFiles watches the files at paths, which need not exist; their folders
// must. A file whose folder is missing is not watched, and the error says so.
func WatchFiles(paths ...string) (*FileWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &FileWatch{events: os.NewFile(uintptr(fd), "inotify"), names: make(map[string]bool), changed: make(chan struct{}, 1)}
	const mask = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_ATTRIB
	var errs []error
	for _, p := range paths {
		w.names[filepath.Base(p)] = true
		if _, err := unix.InotifyAddWatch(fd, filepath.Dir(p), mask); err != nil {
			errs = append(errs, fmt.Errorf("%s is not watched for changes: %w", p, err))
		}
	}
	return w, errors.Join(errs...)
}

// Changed gets a value after one or several changes. A nil FileWatch, which is
// what there is where the kernel gives no inotify instance, never sees any.
func (w *FileWatch) Changed() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.changed
}

// Close ends Run.
func (w *FileWatch) Close() error { return w.events.Close() }

// Run reads events until ctx ends or it is closed.
func (w *FileWatch) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.events.Close() })
	defer stop()
	buf := make([]byte, 16<<10)
	for {
		n, err := w.events.Read(buf)
		switch {
		case ctx.Err() != nil, errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("inotify: %w", err)
		}
		if w.concerns(buf[:n]) {
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}
}

// concerns reports whether one of the events is about a file of ours. After an
// overflow everything may have changed.
func (w *FileWatch) concerns(b []byte) bool {
	for len(b) >= unix.SizeofInotifyEvent {
		mask := native.Uint32(b[4:])
		size := int(native.Uint32(b[12:]))
		if mask&unix.IN_Q_OVERFLOW != 0 {
			return true
		}
		b = b[unix.SizeofInotifyEvent:]
		if size > len(b) {
			return true
		}
		if w.names[unix.ByteSliceToString(b[:size])] {
			return true
		}
		b = b[size:]
	}
	return false
}
