package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// width asks the terminal, and COLUMNS comes first.
func TestWidth(t *testing.T) {
	t.Setenv("COLUMNS", "")
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs a pseudo-terminal: %v", err)
	}
	defer func() { _ = master.Close() }()
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 97})
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs /dev/pts: %v", err)
	}
	defer func() { _ = terminal.Close() }()
	if got := width(terminal); got != 97 {
		t.Errorf("width(terminal) = %d, want 97", got)
	}
	if got := width(new(bytes.Buffer)); got != 0 {
		t.Errorf("width(no terminal) = %d, want 0", got)
	}
	t.Setenv("COLUMNS", "61")
	if got := width(terminal); got != 61 {
		t.Errorf("with COLUMNS=61, width = %d", got)
	}
}

func TestTablesFitTheTerminal(t *testing.T) {
	for width := 50; width < 200; width++ {
		var out bytes.Buffer
		table := newBanTable(now, false)
		for _, b := range sampleBans() {
			table.add(&b)
		}
		err := buffered(&out, func(w *bufio.Writer) { table.write(w, width) })
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if n := len(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("width %d: %d columns: %s", width, n, line)
			}
		}
		if !strings.Contains(out.String(), "2001:db8:1111:2222::/64") {
			t.Errorf("width %d: an address was cut:\n%s", width, out.String())
		}
	}
}
