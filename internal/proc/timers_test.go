package proc

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestLazyTimers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root (CAP_SYS_NICE)")
	}
	const path = "/proc/self/timerslack_ns" // of the first thread, which need not be this one
	before, err := os.ReadFile(path)
	if err != nil {
		t.Skip(err)
	}
	was, err := time.ParseDuration(strings.TrimSpace(string(before)) + "ns")
	if err != nil {
		t.Fatal(err)
	}
	defer LazyTimers(was)
	if err := LazyTimers(3 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(now)) != "3000000" {
		t.Errorf("timer slack %q: %v", now, err)
	}
}
