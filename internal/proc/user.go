package proc

import (
	"errors"
	"os"
	"os/user"
	"strconv"
)

// User is whom portsentry.service runs the daemon as.
const User = "portsentry"

// UserID is the number of User; an error where there is no such user.
func UserID() (uint32, error) {
	u, err := user.Lookup(User)
	if err != nil {
		return 0, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, errors.New("user " + User + " has no number")
	}
	return uint32(uid), nil
}

// Trusts reports whether files of the user uid may be ours: those of root, of the
// user that we are, and of User, whom a daemon that root starts by hand takes turns
// with.
func Trusts(uid uint32) bool {
	if uid == 0 || int(uid) == os.Geteuid() {
		return true
	}
	ours, err := UserID()
	return err == nil && uid == ours
}
