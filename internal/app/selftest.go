package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/view/cli"
)

// selftestLimit bounds a whole self-test; what it takes to clean up comes on top.
const selftestLimit = 18 * time.Second

const selftestLong = `Selftest makes a scanner and a host in network namespaces of their own, runs this
very program on the host with the configuration at hand, sends it every kind of
probe, each from an address of its own, and prints what was seen, named, banned
and released. Exit status: 0 as promised, 1 not so, 2 it could not be tested.

Nothing of this machine is touched: the files that the configuration names are
others in the test, and commands (KILL_ROUTE, KILL_RUN_CMD, KILL_HOSTS_DENY) are
not run.`

func newSelftest(path *string, stdout, stderr io.Writer) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "selftest",
		Short:   "Scan this configuration in a network namespace, and show what becomes of it",
		Long:    selftestLong,
		Example: "  sudo portsentry selftest\n  sudo portsentry selftest -c new.conf --json",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("selftest takes no argument, and %q is one; name a file with -c", args[0])
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := Options{ConfigPath: *path}
			c, _, err := o.load()
			if err != nil {
				return &exitError{code: 2, err: err}
			}
			report, err := runSelftest(cmd.Context(), c, progressOn(stderr))
			if err != nil {
				return &exitError{code: 2, err: fmt.Errorf("the configuration was not tested: %w", err)}
			}
			if err := cli.WriteSelftest(stdout, report, asJSON); err != nil {
				return err
			}
			if kept, asked := report.Kept(); kept < asked {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object for each probe, and one at the end")
	return cmd
}

// progressOn says what goes on where somebody looks at it, each sentence in the
// place of the one before; "" takes the last one away.
func progressOn(out io.Writer) func(string) {
	f, ok := out.(*os.File)
	if !ok {
		return func(string) {}
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return func(string) {}
	}
	return func(sentence string) { fmt.Fprint(f, "\r\x1b[K"+sentence) }
}

// runSelftest tests what c promises. Whatever it makes it removes, also when ctx
// ends.
func runSelftest(ctx context.Context, c *config.Config, progress func(string)) (report *cli.Selftest, err error) {
	started := time.Now()
	limited, cancel := context.WithTimeout(ctx, selftestLimit)
	defer cancel()
	defer func() {
		progress("")
		switch {
		case err == nil:
		case ctx.Err() != nil:
			err = errors.New("interrupted; nothing is left behind")
		case limited.Err() != nil:
			err = fmt.Errorf("not done after %v: %w (a machine that is very busy? try again)", selftestLimit, err)
		}
	}()
	dir, err := os.MkdirTemp("", "portsentry-selftest-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tried, err := tryOut(c, dir)
	if err != nil {
		return nil, err
	}
	progress("making network namespaces ...")
	s, err := newSelfStage(tried)
	if err != nil {
		return nil, withoutNamespaces(err)
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.connect(limited); err != nil {
		return nil, err
	}
	trials := s.trials()
	progress("starting portsentry in one of them ...")
	d, err := startSelf(limited, s.host.NS, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := s.run(limited, d, trials, progress); err != nil {
		return nil, errors.Join(err, d.ended())
	}
	report = &cli.Selftest{Config: nameOf(c), Notes: tried.notes}
	if report.Stage, err = s.words(limited, d); err != nil {
		return nil, err
	}
	if t := interfacesTrial(c); t != nil {
		report.Trials = append(report.Trials, *t)
	}
	for _, t := range trials {
		report.Trials = append(report.Trials, t.Trial)
	}
	report.Took = time.Since(started)
	return report, nil
}

// withoutNamespaces adds what to do to the error of a machine, or a user, that
// makes none.
func withoutNamespaces(err error) error {
	switch {
	case os.Geteuid() != 0:
		return errors.New("network namespaces of its own take root: sudo portsentry selftest")
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w; in a container it takes --privileged", err)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w; the kernel needs CONFIG_NET_NS and CONFIG_VETH", err)
	}
	return err
}

// nameOf is what a configuration is called.
func nameOf(c *config.Config) string {
	if c.Path == "" {
		return "built-in defaults"
	}
	return c.Path
}
