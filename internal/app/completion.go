package app

import (
	"fmt"
	"net"

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
	cmd.SuggestionsMinimumDistance = root.SuggestionsMinimumDistance
	for _, shell := range cmd.Commands() {
		if shell.Name() == "powershell" {
			cmd.RemoveCommand(shell)
		}
		shell.Args = noWords
	}
	words := map[string][]string{"logoutput": {"stdout", "syslog"}, "method": {"pcap", "raw"}, "interface": {"ALL", "ALL_NLO"}}
	if links, err := net.Interfaces(); err == nil {
		for i := range links {
			words["interface"] = append(words["interface"], links[i].Name)
		}
	}
	for flag, known := range words {
		_ = root.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(known, cobra.ShellCompDirectiveNoFileComp))
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
