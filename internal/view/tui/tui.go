// Package tui is `portsentry top`: the answers of a running daemon go in, and keys;
// a picture that fits the terminal comes out, and orders to ban and unban.
//
// It is a program of bubbletea: a model, changed by messages alone, and a screen made
// of it. All that is kept is bounded, and so is what the daemon is asked: no question
// costs it more than a twentieth of its time.
package tui

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"golang.org/x/sys/unix"

	"portsentry/internal/view"
)

// Client asks the daemon. Errors are for a person to read, with their hint.
type Client interface {
	Status(ctx context.Context) (view.Status, error)
	Report(ctx context.Context, since time.Time) (view.Report, error)
	// Sources are those seen since then, the latest first, at most limit.
	Sources(ctx context.Context, since time.Time, limit int) (view.SourceList, error)
	// Bans are the latest, at most limit, and whether there are more.
	Bans(ctx context.Context, limit int) ([]view.Ban, bool, error)
	// Follow calls take with what was told last, at most before events, and then with
	// what happens, until ctx ends or the daemon goes.
	Follow(ctx context.Context, before int, take func(view.Event)) error
	// Why is what `portsentry why` says, in lines of at most width columns.
	Why(ctx context.Context, a netip.Addr, width int) (string, error)
	// Ban and Unban say what was done. An empty length is BAN_TIME.
	Ban(ctx context.Context, p netip.Prefix, length string) (string, error)
	Unban(ctx context.Context, p netip.Prefix) (string, error)
}

// Run shows how things are on the terminal of this process until somebody quits or ctx
// ends.
func Run(ctx context.Context, c Client) error {
	term := os.Getenv("TERM")
	switch {
	case !isTerminal(os.Stdin) || !isTerminal(os.Stdout):
		return errors.New("top needs a terminal, for its picture and its keys; without one: portsentry status, portsentry events -f")
	case term == "" || term == "dumb":
		return errors.New("top needs a terminal that can move its cursor, and TERM says that this one cannot; there are portsentry status and portsentry events -f")
	}
	st, err := c.Status(ctx) // an answer, or why there is none, before the screen changes
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	f := newFeed()
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		f.run(ctx, c)
	}()
	m := newModel(ctx, c, f.beat, time.Now())
	m.colour = os.Getenv("NO_COLOR") == ""
	m.blocks = speaksUTF8(os.Getenv)
	m.tookStatus(&st)
	_, err = tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(os.Stdin), tea.WithOutput(os.Stdout),
		tea.WithColorProfile(colorprofile.ANSI), tea.WithFPS(framesPerSecond), tea.WithoutSignalHandler()).Run()
	cancel()
	<-followed
	if errors.Is(err, context.Canceled) { // SIGTERM: the terminal is as it was
		return nil
	}
	return err
}

// framesPerSecond is how soon a key shows on the screen. What happens is drawn at
// every beat at most.
const framesPerSecond = 20

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// speaksUTF8 reports whether the locale says that the terminal has more than ASCII.
func speaksUTF8(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := getenv(name); v != "" {
			v = strings.ToUpper(v)
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return false
}
