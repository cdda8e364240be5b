package app

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/view/cli"
)

// progress says on a terminal how far it has come, from the second second on.
type progress struct {
	to    *os.File // nil: it is no terminal
	last  time.Time
	shown bool
}

// progressEvery is how many packets go by between two looks at the clock.
const progressEvery = 1 << 16

func newProgress(to io.Writer) *progress {
	p := &progress{last: time.Now()}
	if f, ok := to.(*os.File); ok {
		if _, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			p.to = f
		}
	}
	return p
}

// at says that so many packets have been read.
func (p *progress) at(packets uint64) {
	if p.to == nil || time.Since(p.last) < time.Second {
		return
	}
	p.last, p.shown = time.Now(), true
	fmt.Fprintf(p.to, "\r%s packets", cli.Grouped(packets))
}

// clear takes the line away, for another one.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.to, "\r\x1b[K")
		p.shown = false
	}
}
