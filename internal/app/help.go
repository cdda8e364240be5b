package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/spf13/cobra"
)

// helpTo has help written to out, and gives what went wrong with that: the parser
// does not ask.
func helpTo(root *cobra.Command, out io.Writer) (failed func() error) {
	var err error
	write := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		var text bytes.Buffer
		cmd.SetOut(&text)
		write(cmd, args)
		_, err = text.WriteTo(out)
	})
	return func() error { return err }
}

// helpCommand makes "help nonsense" the error that "nonsense" is.
func helpCommand(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil || help == root {
		return
	}
	help.Short, help.Long = "Show what a command does, and how it is used", ""
	help.Run = nil
	help.RunE = func(_ *cobra.Command, args []string) error {
		cmd, rest, _ := root.Find(args)
		if len(rest) > 0 {
			return noSuchCommand(cmd, rest[0])
		}
		cmd.InitDefaultHelpFlag()
		cmd.InitDefaultVersionFlag()
		return cmd.Help()
	}
}

// noSuchCommand says that cmd has none of that name, and what was probably meant.
func noSuchCommand(cmd *cobra.Command, name string) error {
	if near := cmd.SuggestionsFor(name); name != "" && len(near) > 0 {
		return fmt.Errorf("%q is no command of %s; did you mean %s?", name, cmd.CommandPath(), near[0])
	}
	return fmt.Errorf("%q is no command of %s%s", name, cmd.CommandPath(), seeHelp(cmd))
}

// noWords refuses what is neither a flag nor a command.
func noWords(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return noSuchCommand(cmd, args[0])
	}
	return fmt.Errorf("%s takes no argument, and %.60q is one", cmd.Name(), args[0])
}

// readerGone is the exit status of a program that SIGPIPE has ended.
const readerGone = 128 + int(syscall.SIGPIPE)

// unread reports whether err is that nobody reads standard output any more.
func unread(err error) bool {
	file, ok := errors.AsType[*fs.PathError](err)
	return ok && file.Path == os.Stdout.Name() && errors.Is(file, syscall.EPIPE)
}
