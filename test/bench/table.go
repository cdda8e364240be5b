package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const rowFormat = "%-4s  %-8s  %-60s  %-36s  %s\n"

func (b *bench) header() { fmt.Fprintf(b.out, rowFormat, "", "way", "what", "target", "measured") }

// row prints one figure that has a target. way is the name of one, or empty.
func (b *bench) row(way, what, target string, met bool, measured string, args ...any) {
	verdict := "ok"
	if !met {
		verdict = "MISS"
		b.misses++
	}
	fmt.Fprintf(b.out, rowFormat, verdict, way, what, target, fmt.Sprintf(measured, args...))
}

// note prints one figure that has none, and is there to judge the others by.
func (b *bench) note(way, what, measured string, args ...any) {
	fmt.Fprintf(b.out, rowFormat, "", way, what, "", fmt.Sprintf(measured, args...))
}

// machine names what the figures hold for.
func machine() string {
	var u unix.Utsname
	kernel := "unknown kernel"
	if err := unix.Uname(&u); err == nil {
		kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%s %s, %d cores (%s), load before the start %s, %s",
		kernel, runtime.GOARCH, runtime.NumCPU(), cpuModel(string(info)), firstField(string(load)),
		time.Now().Format(time.DateOnly))
}

// cpuModel reads the first model name of /proc/cpuinfo.
func cpuModel(info string) string {
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown model"
}

func firstField(s string) string {
	first, _, _ := strings.Cut(s, " ")
	return first
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
