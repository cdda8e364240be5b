package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

var errNoCgroup2 = errors.New("no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")

// cgroupRoot finds the topmost cgroup that we can attach to. whole says that
// it is the root of all, so that no process of the host escapes.
func cgroupRoot() (path string, whole bool, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", false, fmt.Errorf("look for cgroup2: %w", err)
	}
	defer f.Close()
	if path, err = cgroup2Mount(f); err != nil {
		return "", false, fmt.Errorf("look for cgroup2: %w", err)
	}
	// Every cgroup has a type but the root of all.
	_, err = os.Stat(filepath.Join(path, "cgroup.type"))
	return path, errors.Is(err, os.ErrNotExist), nil
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
