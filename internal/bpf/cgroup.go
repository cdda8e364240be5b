package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

var errNoCgroup2 = errors.New("no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")

// cgroupRoot opens the topmost cgroup that we can attach to. whole says that it
// is the root of all, so that no process of the host escapes.
func cgroupRoot() (dir *os.File, whole bool, err error) {
	dir, err = mountedRoot()
	if err != nil {
		// It need not be mounted where we are: `ip netns exec` hides it, and old
		// systems mount version 1 alone. A mount of our own, which nobody sees and
		// which ends with its descriptor, is the same file system.
		own, ownErr := ownRoot()
		if ownErr != nil {
			return nil, false, err
		}
		dir = own
	}
	// Every cgroup has a type but the root of all.
	var st unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), "cgroup.type", &st, 0)
	return dir, errors.Is(err, unix.ENOENT), nil
}

func mountedRoot() (*os.File, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look for cgroup2: %w", err)
	}
	defer f.Close()
	path, err := cgroup2Mount(f)
	if err != nil {
		return nil, fmt.Errorf("look for cgroup2: %w", err)
	}
	return os.Open(path)
}

// ownRoot mounts cgroup2 nowhere (Linux 5.2, CAP_SYS_ADMIN).
func ownRoot() (*os.File, error) {
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "cgroup2"), nil
}

// cgroup2Mount reads mountinfo, proc_pid_mountinfo(5): id, parent, device,
// root, mount point, options, optional fields, "-", type and more. A mount of
// the root is preferred to one of something below.
func cgroup2Mount(mountinfo io.Reader) (string, error) {
	best, bestRoot := "", ""
	lines := bufio.NewScanner(mountinfo)
	lines.Buffer(nil, 1<<20) // overlay mounts have long lines
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || !strings.HasPrefix(after, "cgroup2 ") || len(fields) < 6 {
			continue
		}
		if root := fields[3]; best == "" || root == "/" && bestRoot != "/" {
			best, bestRoot = unescape(fields[4]), root
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	if best == "" {
		return "", errNoCgroup2
	}
	return best, nil
}

// unescape undoes what the kernel does to blanks and backslashes in a path.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
