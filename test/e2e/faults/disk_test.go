package faults_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/test/lab"
)

// files are the keys of all that a daemon writes, in a folder on some disk.
func files(disk string) map[string]string {
	return map[string]string{
		"HISTORY_FILE":  filepath.Join(disk, "history"),
		"BLOCKED_FILE":  filepath.Join(disk, "blocked"),
		"DATABASE_FILE": filepath.Join(disk, "portsentry.db"),
	}
}

// disk is a file system that can be frozen: whoever writes to it then waits until it is
// thawed, and no signal ends that.
type disk struct {
	t    *testing.T
	path string
}

// guard thaws and unmounts when its standard input ends: with the test, whatever becomes
// of that.
const guard = `cat >/dev/null; fsfreeze -u "$0" 2>/dev/null; umount -l "$0"`

func newDisk(t *testing.T) *disk {
	t.Helper()
	lab.NeedProgram(t, "mkfs.ext4", "e2fsprogs")
	lab.NeedProgram(t, "fsfreeze", "util-linux")
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	d := &disk{t, filepath.Join(dir, "disk")}
	check(t, os.Mkdir(d.path, 0o755))
	f, err := os.Create(image)
	check(t, err)
	check(t, errors.Join(f.Truncate(32<<20), f.Close()))
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-F", image},
		{"mount", "-o", "loop,nosuid,nodev,noexec", image, d.path},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%v: %v\n%s", args, err, out)
			}
			t.Skipf("needs a loop device: %v: %v\n%s", args, err, out)
		}
	}
	cmd := exec.Command("sh", "-c", guard, d.path)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // Ctrl-C is for us
	end, err := cmd.StdinPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() {
		end.Close()
		check(t, cmd.Wait())
	})
	return d
}

// FIFREEZE and FITHAW of linux/fs.h, _IOWR('X', 119 and 120, int).
const (
	fifreeze = 0xc0045877
	fithaw   = 0xc0045878
)

// freeze stops it, thaw lets it go on.
func (d *disk) freeze() {
	d.t.Helper()
	check(d.t, d.ioctl(fifreeze))
	d.t.Cleanup(func() { d.ioctl(fithaw) }) // before the daemon is stopped, which may be unable to end
}

func (d *disk) thaw() { d.t.Helper(); check(d.t, d.ioctl(fithaw)) }

func (d *disk) ioctl(request uint) error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetInt(int(f.Fd()), request, 0)
}

// read is what is in a file.
func read(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	check(t, err)
	defer f.Close()
	text, err := io.ReadAll(f)
	check(t, err)
	return string(text)
}
