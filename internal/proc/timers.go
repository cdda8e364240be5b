package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// LazyTimers lets the timers of every thread, and of those that they start, go off
// up to late after their time, so that the kernel wakes us for several at once
// (timerslack_ns of proc(5), 50 us by default). It takes CAP_SYS_NICE.
func LazyTimers(late time.Duration) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("timer slack: %w", err)
	}
	for _, t := range threads {
		err := os.WriteFile(filepath.Join("/proc", t.Name(), "timerslack_ns"), strconv.AppendInt(nil, late.Nanoseconds(), 10), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it has ended
			return fmt.Errorf("timer slack: %w", err)
		}
	}
	return nil
}
