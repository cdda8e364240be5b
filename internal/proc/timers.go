package proc

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// LazyTimers lets the timers of every thread, and of those that they start, go off
// up to late after their time, so that the kernel wakes us for several at once
// (PR_SET_TIMERSLACK, 50 us by default).
func LazyTimers(late time.Duration) error {
	if _, err := cap.Prctlw(unix.PR_SET_TIMERSLACK, uintptr(late.Nanoseconds()), 0, 0, 0); err != nil {
		return fmt.Errorf("timer slack: %w", err)
	}
	return nil
}
