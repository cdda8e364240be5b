// Package app wires the stages into one program: the command line, start,
// announcement, status and stop. What goes in: arguments and a context. What
// comes out: an exit code. It is the only package that sees all of the house.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"portsentry/internal/config"
	"portsentry/internal/view"
	"portsentry/internal/view/cli"
	"portsentry/packaging"
)

// DefaultConfig is where the configuration is looked for when -c does not say.
const DefaultConfig = "/etc/portsentry/portsentry.conf"

// Build is what the linker says about this binary.
type Build struct{ Version, Commit string }

// String is the version line of PortSentry 2.x.
func (b Build) String() string { return fmt.Sprintf("Portsentry %s (%s)", b.Version, b.Commit) }

// Main parses args, does what they say and returns the exit code: 0 for
// success; for an error 255 with a flag of 1.x, as 1.x had it, 1 bare and with
// flags of 2.x, 2 for a subcommand. ctx ending stops the daemon in order.
func Main(ctx context.Context, build Build, args []string, stdout, stderr io.Writer) int {
	old, rest := takeOldModes(args)
	root := newRoot(build, old, rest, stdout, stderr)
	helpFailed := helpTo(root, stdout)
	root.SetArgs(append([]string{}, rest...)) // nil would be the arguments of the process
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = helpFailed()
	}
	switch {
	case err == nil:
		return 0
	case unread(err):
		return readerGone
	}
	var code *exitError
	if !errors.As(err, &code) {
		code = &exitError{code: 1, err: err}
		switch {
		case len(old) > 0:
			code.code = 255
		case cmd != root:
			code.code = cli.ExitCode(err)
		}
	}
	said := ""
	if code.err != nil && code.Error() != "" { // else the exit code says all there is
		said = fmt.Sprintln(code.err)
	}
	var mistakes *config.Mistakes
	if errors.As(err, &mistakes) {
		n := len(*mistakes)
		said += fmt.Sprintf("%d %s; nothing was changed\n", n, plural(n, "mistake", "mistakes"))
	}
	lastWords(stderr, said)
	return code.code
}

// lastWords writes what is left to say. A reader who has stopped reading holds up
// no end.
func lastWords(w io.Writer, said string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.WriteString(w, said)
	}()
	select {
	case <-done:
	case <-time.After(lastWordsTime):
	}
}

const lastWordsTime = time.Second

// exitError carries the exit code that an error asks for.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return fmt.Sprint(e.err) }
func (e *exitError) Unwrap() error { return e.err }

const rootLong = `Portsentry watches the unused ports of this machine. Whoever probes them is
scanning: it says who, how and where, and answers as the configuration says.

Without arguments it runs in the foreground with ` + DefaultConfig + `
or, where there is none, with the built-in default, log only.

The flags of PortSentry 1.x, one or two of them, choose how TCP and UDP are
watched, and detach: -tcp -udp (trap ports accept), -stcp -sudp (stealth),
-atcp -audp (advanced stealth). SIGHUP reads the configuration again.`

const rootExample = `  sudo portsentry                     watch with the default configuration
  sudo portsentry --connect -D        trap ports accept; detach, log to syslog
  sudo portsentry -stcp -sudp         as PortSentry 1.x
  portsentry check -c portsentry.conf read a configuration and say what is wrong with it
  portsentry status                   what is going on
  sudo portsentry unban 203.0.113.9   undo a ban`

// newRoot builds the commands. old are the flags of 1.x, args all others.
func newRoot(build Build, old, args []string, stdout, stderr io.Writer) *cobra.Command {
	var (
		path, socket string
		f            flags
	)
	root := &cobra.Command{
		Use:           "portsentry",
		Short:         "notice who probes this machine, and cut them off",
		Long:          rootLong,
		Example:       rootExample,
		Version:       build.String(),
		Args:          noWords,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := f.options(old)
			if err != nil {
				return err
			}
			o.Build, o.ConfigPath, o.Socket, o.Stdout, o.Stderr = build, path, socket, stdout, stderr
			return start(cmd.Context(), o, append(dashed(old), args...))
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SuggestionsMinimumDistance = 2
	root.Flags().SortFlags = false
	root.Flags().BoolP("version", "V", false, "print the version")
	f.register(root.Flags())
	root.PersistentFlags().StringVarP(&path, "configfile", "c", "", "configuration `file` (default "+DefaultConfig+")")
	root.PersistentFlags().StringVar(&socket, "socket", view.DefaultSocket, "control socket `file`")
	root.AddCommand(newCheck(&path, stdout), newReplay(&path, stdout, stderr), newSelftest(&path, stdout, stderr), newHelper(&path), newClear(&socket, stdout), newTop(&socket))
	root.AddCommand(cli.Commands(cli.Options{Socket: &socket})...)
	completion(root)
	helpCommand(root)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if len(old) > 0 && cmd != root {
			return fmt.Errorf("-%s starts the daemon, and %s is a command: one of them only", old[0], cmd.Name())
		}
		return nil
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return flagError(cmd, args, err) })
	return root
}

func dashed(modes []string) []string {
	out := make([]string, len(modes))
	for i, m := range modes {
		out[i] = "-" + m
	}
	return out
}

func newCheck(path *string, stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Read the configuration and say everything that is wrong with it, touching nothing",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("check takes no argument, and %q is one; name a file with -c", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := Options{ConfigPath: *path}
			c, _, err := o.load()
			if err != nil {
				return &exitError{code: 2, err: err}
			}
			if err := checkFiles(cmd.Context(), c); err != nil {
				return &exitError{code: 2, err: err}
			}
			return c.WriteEffective(stdout)
		},
	}
}

// loadConfig reads path; without one the default file where there is one, else
// the shipped file's values, log only.
func loadConfig(path string) (*config.Config, error) {
	if path == "" {
		path = DefaultConfig
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return builtin()
		}
	}
	return config.Load(path)
}

// builtin is the shipped file without its files: a first look at a machine
// leaves nothing behind on it.
func builtin() (*config.Config, error) {
	c, err := config.Parse("", packaging.Config())
	if err != nil {
		return nil, fmt.Errorf("the built-in configuration: %w", err)
	}
	c.BlockTCP, c.BlockUDP, c.BlockMethods = config.BlockNone, config.BlockNone, nil
	c.HistoryFile, c.BlockedFile, c.SourcesFile, c.DatabaseFile = "", "", "", ""
	if _, err := os.Stat(c.IgnoreFile); errors.Is(err, os.ErrNotExist) {
		c.IgnoreFile = ""
	}
	return c, nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
