package app

import (
	"github.com/spf13/cobra"

	"portsentry/internal/view/cli"
	"portsentry/internal/view/tui"
)

const topLong = `Show on the terminal, as it changes, who probes this machine, at what rate and on
which ports, what happens and who is banned. The keys ban, unban and ask why; ? shows
them all. Errors are exit status 2, and without a terminal there is nothing else.`

// newTop is the live picture of a daemon.
func newTop(socket *string) *cobra.Command {
	return &cobra.Command{
		Use:               "top",
		Short:             "Show sources, rates, ports and bans as they change; ban and unban by a key",
		Long:              topLong,
		Args:              noWords,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return tui.Run(cmd.Context(), cli.NewRemote(cli.Options{Socket: socket}))
		},
	}
}
