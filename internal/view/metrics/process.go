package metrics

import (
	"os"
	"runtime"
	runtimemetrics "runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process are the numbers of this process that dashboards know by these names.
// What cannot be read is left out.
func Process(started time.Time) []Family {
	out := []Family{
		One("process_start_time_seconds", "Start time of the process, seconds since the epoch.", Gauge, seconds(started)),
	}
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		used := time.Duration(u.Utime.Nano() + u.Stime.Nano())
		out = append(out, One("process_cpu_seconds_total", "User and system CPU time, in seconds.", Counter, used.Seconds()))
	}
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		// Pages: all of it, resident, and more; proc_pid_statm(5).
		if pages := strings.Fields(string(statm)); len(pages) > 1 {
			out = append(out,
				One("process_virtual_memory_bytes", "Virtual memory, in bytes.", Gauge, bytesOf(pages[0])),
				One("process_resident_memory_bytes", "Resident memory, in bytes.", Gauge, bytesOf(pages[1])))
		}
	}
	if n, err := openFiles(); err == nil {
		out = append(out, One("process_open_fds", "Open file descriptors.", Gauge, float64(n)))
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		out = append(out, One("process_max_fds", "Most file descriptors that may be open.", Gauge, float64(limit.Cur)))
	}
	heap := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	runtimemetrics.Read(heap) // stops nothing
	return append(out,
		Family{Name: "go_info", Help: "Version of Go.", Samples: []Sample{{[]Label{{"version", runtime.Version()}}, 1}}},
		One("go_goroutines", "Goroutines that there are.", Gauge, float64(runtime.NumGoroutine())),
		One("go_memstats_heap_alloc_bytes", "Heap in use, in bytes.", Gauge, float64(heap[0].Value.Uint64())),
	)
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func bytesOf(pages string) float64 {
	n, _ := strconv.ParseUint(pages, 10, 64)
	return float64(n * uint64(os.Getpagesize()))
}

// openFiles counts descriptors, without the one that it takes to count.
func openFiles() (int, error) {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	return len(names) - 1, err
}
