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
	RSS       int64         // bytes resident; see parsePss
	Maps      int64         // bytes of the kernel's, for BPF maps that they hold open
	Processes int
}

// Memory is RSS and Maps together. It errs to the high side: pages of a BPF map
// that a process has mapped, as all of a ring buffer's are, are in both.
func (u Usage) Memory() int64 { return u.RSS + u.Maps }

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

// parsePss reads Pss out of /proc/PID/smaps_rollup, in bytes: the resident pages
// of a process, each divided by how often it is mapped. Summed over the
// processes, a page that they share counts once, and so does one that a process
// has mapped twice, as it has the data of a BPF ring buffer; in VmRSS it would
// count each time. The rings of packet sockets are in it.
func parsePss(b []byte) int64 {
	_, after, found := bytes.Cut(b, []byte("\nPss:"))
	fields := bytes.Fields(after)
	if !found || len(fields) == 0 {
		return 0
	}
	kB, _ := strconv.ParseInt(string(fields[0]), 10, 64)
	return kB << 10
}

// parseMap reads the /proc/PID/fdinfo of a BPF map: its number in the kernel and
// what the kernel says that it takes, in bytes. Other files are not ok.
func parseMap(b []byte) (id, size int64, ok bool) {
	hasID, hasSize := false, false
	for line := range bytes.Lines(b) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		number, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		switch {
		case err != nil:
		case string(key) == "map_id":
			id, hasID = number, true
		case string(key) == "memlock":
			size, hasSize = number, true
		}
	}
	return id, size, hasID && hasSize
}

// addMaps puts the BPF maps that a process holds open into sizes, by number.
func addMaps(pid int, sizes map[int64]int64) {
	dir := fmt.Sprintf("/proc/%d/fdinfo", pid)
	entries, _ := os.ReadDir(dir) // none when the process has ended
	for _, e := range entries {
		info, _ := os.ReadFile(dir + "/" + e.Name())
		if id, size, ok := parseMap(info); ok {
			sizes[id] = size
		}
	}
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
	maps := make(map[int64]int64)
	for _, p := range tree(stats, pid) {
		ran, err := processClock(p)
		if err != nil {
			continue // ended meanwhile
		}
		u.CPU += ran + stats[p].ended
		rollup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p)) // empty for one that is ending
		u.RSS += parsePss(rollup)
		addMaps(p, maps)
		u.Processes++
	}
	for _, size := range maps {
		u.Maps += size
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
