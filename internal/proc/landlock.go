package proc

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	lsyscall "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// What may be done with files, landlock(7). To run one is nothing that we do; no
// device is controlled, and nothing is moved from one folder to another.
const (
	fileRead  = lsyscall.AccessFSReadFile | lsyscall.AccessFSReadDir
	fileWrite = fileRead | lsyscall.AccessFSWriteFile | lsyscall.AccessFSTruncate |
		lsyscall.AccessFSMakeReg | lsyscall.AccessFSMakeSock | lsyscall.AccessFSMakeDir |
		lsyscall.AccessFSRemoveFile | lsyscall.AccessFSRemoveDir
)

// restrictFiles lets us open what is in the folders of s, and nothing else. What
// is open stays so. As a consequence, and whatever our capabilities are, /proc
// shows us nothing of other processes that a debugger could see (their
// descriptors, their environment).
func (s *Sandbox) restrictFiles() error {
	if abi, err := lsyscall.LandlockGetABIVersion(); err != nil || abi < 1 {
		return errors.New("this kernel has none, or it is switched off (Linux 5.13 has it, with landlock among lsm=)")
	}
	// Version 5 has all that is used here. What an older kernel does not know it
	// does not forbid either. Sockets are not restricted: whoever can reach
	// the network through ours needs no other.
	err := landlock.V5.BestEffort().RestrictPaths(
		landlock.PathAccess(fileRead, s.Read...).IgnoreIfMissing(),
		landlock.PathAccess(fileWrite, s.Write...).IgnoreIfMissing(),
		landlock.PathAccess(lsyscall.AccessFSRemoveFile, s.Remove...).IgnoreIfMissing(),
		landlock.PathAccess(lsyscall.AccessFSReadFile|lsyscall.AccessFSWriteFile, "/dev/null").IgnoreIfMissing(),
	)
	if err != nil {
		return fmt.Errorf("it could not be used: %w", err)
	}
	s.files = true
	return nil
}

// Reads reports whether a file at path, absolute, can be opened for that, as far as
// its name tells: a symbolic link may lead elsewhere.
func (s *Sandbox) Reads(path string) bool {
	return !s.files || below(s.Read, path) || below(s.Write, path)
}

// Writes reports whether it can be made and written.
func (s *Sandbox) Writes(path string) bool { return !s.files || below(s.Write, path) }

func below(folders []string, path string) bool {
	for _, f := range folders {
		rel, err := filepath.Rel(f, path)
		if err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return true
		}
	}
	return false
}
