package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a process and its descendants use.
type Usage struct {
	CPU       time.Duration // user and system, children that have ended included
	RSS       int64         // bytes resident; pages that two of them share count twice
	Processes int
}

// userHZ is the unit of times in /proc/PID/stat, on every architecture of ours.
const userHZ = 100

// stat is what we need of /proc/PID/stat.
type stat struct {
	ppid  int
	ended time.Duration // CPU of children waited for
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)). The second field is the
// command in brackets and may hold anything, brackets and blanks included.
func parseStat(b []byte) (stat, error) {
	end := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[end+1:]) // from field 3 on
	if end < 0 || len(fields) < 15 {
		return stat{}, fmt.Errorf("not a /proc/PID/stat: %q", b)
	}
	number := func(field int) (int64, error) { return strconv.ParseInt(string(fields[field-3]), 10, 64) }
	ppid, err1 := number(4)
	user, err2 := number(16)
	system, err3 := number(17)
	if err := errors.Join(err1, err2, err3); err != nil {
		return stat{}, fmt.Errorf("not a /proc/PID/stat: %w", err)
	}
	return stat{ppid: int(ppid), ended: time.Duration(user+system) * time.Second / userHZ}, nil
}

// parseRSS reads VmRSS out of /proc/PID/status, in bytes. A process that is
// ending has none.
func parseRSS(b []byte) int64 {
	_, after, found := bytes.Cut(b, []byte("\nVmRSS:"))
	fields := bytes.Fields(after)
	if !found || len(fields) == 0 {
		return 0
	}
	kB, _ := strconv.ParseInt(string(fields[0]), 10, 64)
	return kB << 10
}

func usage(pid int) (Usage, error) {
	stats, err := allStats()
	if err != nil {
		return Usage{}, err
	}
	if _, ok := stats[pid]; !ok {
		return Usage{}, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	var u Usage
	for _, p := range tree(stats, pid) {
		ran, err := processClock(p)
		if err != nil {
			continue // ended meanwhile
		}
		u.CPU += ran + stats[p].ended
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		u.RSS += parseRSS(status)
		u.Processes++
	}
	return u, nil
}

func allStats() (map[int]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	stats := make(map[int]stat)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // ended meanwhile
		}
		if stats[pid], err = parseStat(b); err != nil {
			return nil, err
		}
	}
	return stats, nil
}

// tree is pid and its descendants.
func tree(stats map[int]stat, pid int) []int {
	found := []int{pid}
	for i := 0; i < len(found); i++ {
		for p, s := range stats {
			if s.ppid == found[i] {
				found = append(found, p)
			}
		}
	}
	return found
}

// processClock is the CPU time of a process in nanoseconds, where
// /proc/PID/stat has hundredths of a second (clock_getcpuclockid(3)).
func processClock(pid int) (time.Duration, error) {
	const cpuclockSched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|cpuclockSched, &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}
