package proc

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ForgetText gives back the pages of our own program file that the start has touched:
// most of them are never needed again, and those that are come back from the page
// cache. Mappings with pages that are no longer those of the file are left alone.
func ForgetText() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/smaps") // proc_pid_smaps(5)
	if err != nil {
		return err
	}
	defer f.Close()
	var errs []error
	var from, to uintptr // of the mapping that the lines are about; 0: not one of those
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"): // 00400000-00c5d000 r-xp 00000000 fe:00 1234 /usr/sbin/portsentry
			from = 0
			if len(fields) == 6 && fields[5] == exe && !strings.Contains(fields[1], "w") {
				if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil {
					from = 0
				}
			}
		case from != 0 && fields[0] == "Anonymous:" && fields[1] == "0":
			if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
				errs = append(errs, errno)
			}
		}
	}
	return errors.Join(append(errs, lines.Err())...)
}
