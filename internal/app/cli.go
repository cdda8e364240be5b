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
	"slices"

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
// success, 1 for an error of the daemon, 2 for one of a subcommand. reload and
// stop signals are its own affair; ctx ending stops the daemon in order.
func Main(ctx context.Context, build Build, args []string, stdout, stderr io.Writer) int {
	if i := slices.IndexFunc(args, isOldFlag); i >= 0 {
		fmt.Fprintf(stderr, "%s: the flags of PortSentry 1.x are not in this version yet; without a flag it watches TCP and UDP in stealth mode\n", args[i])
		return 255 // as 1.x did
	}
	root := newRoot(build, stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var code *exitError
	if !errors.As(err, &code) {
		code = &exitError{code: 1, err: err}
		if cmd, _, ferr := root.Find(args); ferr == nil && cmd != root {
			code.code = cli.ExitCode(err)
		}
	}
	if code.err != nil {
		fmt.Fprintln(stderr, code.err)
	}
	var mistakes *config.Mistakes
	if errors.As(err, &mistakes) {
		n := len(*mistakes)
		fmt.Fprintf(stderr, "%d %s; nothing was changed\n", n, plural(n, "mistake", "mistakes"))
	}
	return code.code
}

// isOldFlag recognises the modes of 1.x, which look like a run of short flags.
func isOldFlag(arg string) bool {
	return slices.Contains([]string{"-tcp", "-udp", "-stcp", "-sudp", "-atcp", "-audp"}, arg)
}

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
or, where there is none, with the built-in default, log only.`

const rootExample = `  sudo portsentry                     watch with the default configuration
  portsentry check -c portsentry.conf read a configuration and say what is wrong with it
  portsentry status                   what is going on
  sudo portsentry unban 203.0.113.9   undo a ban`

func newRoot(build Build, stdout, stderr io.Writer) *cobra.Command {
	var path, socket string
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
			return Run(cmd.Context(), Options{Build: build, ConfigPath: path, Socket: socket, Stdout: stdout, Stderr: stderr})
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SuggestionsMinimumDistance = 2
	root.Flags().BoolP("version", "V", false, "print the version")
	root.PersistentFlags().StringVarP(&path, "configfile", "c", "", "configuration file (default "+DefaultConfig+")")
	root.PersistentFlags().StringVar(&socket, "socket", view.DefaultSocket, "control socket")
	root.AddCommand(newCheck(&path, stdout), newHelper(&path))
	root.AddCommand(cli.Commands(cli.Options{Socket: &socket})...)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w; portsentry --help shows what there is", err)
	})
	return root
}

// noWords refuses what is neither a flag nor a command, and says what was
// probably meant.
func noWords(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := cmd.SuggestionsFor(args[0]); args[0] != "" && len(near) > 0 {
		return fmt.Errorf("%q is no command of portsentry; did you mean %s?", args[0], near[0])
	}
	return fmt.Errorf("%q is no command of portsentry; portsentry --help shows what there is", args[0])
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
		RunE: func(*cobra.Command, []string) error {
			c, err := loadConfig(*path)
			if err != nil {
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
	c.HistoryFile, c.BlockedFile = "", ""
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
