package proc

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The pages go, and the program goes on.
func TestForgetText(t *testing.T) {
	mapped := func() (kB int) {
		t.Helper()
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			if n, _ := fmt.Sscanf(line, "RssFile: %d kB", &kB); n == 1 {
				return kB
			}
		}
		t.Fatal("no RssFile")
		return 0
	}
	before := mapped()
	if err := ForgetText(); err != nil {
		t.Fatal(err)
	}
	if after := mapped(); after >= before {
		t.Errorf("%d kB of files are mapped, %d before", after, before)
	}
}
