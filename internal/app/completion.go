package app

import (
	"fmt"

	"github.com/spf13/cobra"
)

// completion makes the command that writes scripts for shells: one for each
// shell that people use here, and a word for any other.
func completion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	cmd, _, err := root.Find([]string{"completion"})
	if err != nil || cmd == root {
		return
	}
	for _, shell := range cmd.Commands() {
		if shell.Name() == "powershell" {
			cmd.RemoveCommand(shell)
		}
	}
	cmd.Short = "Print a script that completes command lines in bash, zsh or fish"
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return fmt.Errorf("completion is for bash, zsh and fish, not for %q%s", args[0], didYouMean(args[0], "bash", "zsh", "fish"))
	}
}
