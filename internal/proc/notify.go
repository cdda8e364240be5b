package proc

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// notifySocket is where systemd takes news, sd_notify(3): a path, or @ and an
// abstract name. Detach and StartHelper do not pass it on: only the process that
// the service manager watches may speak.
const notifySocket = "NOTIFY_SOCKET"

// notifyLimit is how long a service manager that does not listen is waited for.
const notifyLimit = time.Second

// Notify tells the service manager states such as READY=1, STOPPING=1 and
// STATUS=a line for people. RELOADING=1 gets the time that has to go with it.
// Without a service manager it does nothing.
func Notify(state ...string) error {
	name := os.Getenv(notifySocket)
	if name == "" {
		return nil
	}
	if slices.Contains(state, "RELOADING=1") {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			return fmt.Errorf("monotonic clock: %w", err)
		}
		state = append(slices.Clone(state), "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/1000, 10))
	}
	// net takes a leading @ for an abstract name as well.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager (%s=%s): %w", notifySocket, name, err)
	}
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(notifyLimit))
	if _, err := c.Write([]byte(strings.Join(state, "\n"))); err != nil {
		return fmt.Errorf("tell the service manager (%s=%s): %w", notifySocket, name, err)
	}
	return nil
}

// WatchdogEvery is how often the service manager is to hear WATCHDOG=1: twice in
// the time after which it takes this process for hung (sd_watchdog_enabled(3)). 0:
// it does not listen.
func WatchdogEvery() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0 // another process is meant
	}
	usec, err := strconv.ParseUint(os.Getenv("WATCHDOG_USEC"), 10, 63)
	if err != nil || usec > uint64(time.Hour/time.Microsecond)*24*365 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}
