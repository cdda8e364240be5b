package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/proc"
	"portsentry/internal/view/log"
)

// start runs the daemon, detached if the command line says so. args are all
// arguments of this process.
func start(ctx context.Context, o Options, args []string) error {
	notifier, isDaemon := proc.Detached()
	if o.Detach && !isDaemon {
		return detach(ctx, o, args)
	}
	o.ready = func() {}
	if isDaemon {
		o.ready = func() { notifier.Ready() }
	}
	return Run(ctx, o)
}

// detach starts the daemon and waits until it is ready. What is wrong with the
// configuration is said here, where somebody reads it.
func detach(ctx context.Context, o Options, args []string) error {
	c, _, err := o.load()
	if err != nil {
		if o.Dialect == config.Dialect1x {
			tellSyslog(err) // where 1.x said why it did not start
		}
		return err
	}
	if o.Dialect == config.Dialect1x {
		if joined, err := joinRunning(ctx, &o, c); joined || err != nil {
			return err
		}
	}
	for _, p := range []struct {
		flag string
		path *string
	}{{"--configfile", &o.ConfigPath}, {"--socket", &o.Socket}, {"--pidfile", &o.PIDFile}} {
		if *p.path == "" || filepath.IsAbs(*p.path) {
			continue
		}
		abs, err := filepath.Abs(*p.path)
		if err != nil {
			return err
		}
		args = append(args, p.flag, abs) // the last one counts
	}
	if o.Dialect == config.Dialect2x {
		fmt.Fprintln(o.Stdout, o.Build)
	}
	code := proc.Detach(ctx, args, o.Stderr)
	if code == 0 {
		return nil
	}
	return &exitError{code: code} // the daemon has said why
}

// predecessor is how long a start waits for one that may be about to end: the
// init scripts of 1.x restart without waiting for that.
const predecessor = 3 * time.Second

// tellSyslog says in syslog why there is no daemon, a line for each mistake.
func tellSyslog(err error) {
	syslog, problem := log.OpenSyslog("")
	if problem != nil {
		return
	}
	w := log.New(log.Options{Format: config.Log1x, Syslog: syslog})
	w.Error(strings.Join(mistakesOf(err), "\n"))
	w.Close()
}

// mistakesOf is err as lines: every mistake of a file, or the one sentence.
func mistakesOf(err error) []string {
	var mistakes *config.Mistakes
	if !errors.As(err, &mistakes) {
		return []string{err.Error()}
	}
	lines := make([]string, len(*mistakes))
	for i, m := range *mistakes {
		lines[i] = m.String()
	}
	return lines
}

// writePID writes the pid file that the command line asks for.
func (d *daemon) writePID() error {
	if d.o.PIDFile == "" {
		return nil
	}
	f, err := proc.WritePID(d.o.PIDFile)
	for end := time.Now().Add(predecessor); errors.Is(err, proc.ErrRunning) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		f, err = proc.WritePID(d.o.PIDFile)
	}
	if err != nil {
		return err
	}
	d.onStop(f.Remove)
	return nil
}

// notify tells a service manager, where there is one.
func (d *daemon) notify(state string) {
	said := ""
	if err := proc.Notify(state); err != nil {
		said = err.Error()
	}
	d.problems.set("notify", said)
}

// isTerminal reports whether standard output is a terminal that is still there.
func isTerminal() bool {
	_, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
	return err == nil
}

// errHungUp ends a daemon whose terminal has been closed.
var errHungUp = errors.New("the terminal is gone")

// absolute makes the paths of c independent of where the daemon was started: a
// relative one is one from the folder of the configuration.
func absolute(c *config.Config) error {
	if c.Path == "" {
		return nil
	}
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return err
	}
	c.Path = path
	paths := []*string{&c.IgnoreFile, &c.HistoryFile, &c.BlockedFile, &c.SourcesFile, &c.DatabaseFile}
	for i := range c.GeoFiles {
		paths = append(paths, &c.GeoFiles[i])
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	return nil
}
