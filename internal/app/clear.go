package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"portsentry/internal/bpf"
	"portsentry/internal/respond/ipset"
	"portsentry/internal/respond/nft"
	"portsentry/internal/respond/route"
	"portsentry/internal/view/cli"
)

const clearLong = `Take everything of portsentry's out of the kernel: the XDP program with its bans,
the firewall table, blackhole routes of its own; the sets portsentry4 and portsentry6
are emptied. It is for a daemon that is dead and is not to come back; one that runs is
asked with "portsentry unban all".

Bans that the database holds begin again with the next start, for what is left of
their time. Lines of hosts.deny, and what the KILL_ commands did, are left alone:
only a daemon can undo those.`

// clearTime bounds how long all of it may take.
const clearTime = time.Minute

func newClear(socket *string, stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "clear",
		Short: "Take everything of portsentry's out of the kernel, where no daemon runs",
		Long:  clearLong,
		Args:  noWords,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), clearTime)
			defer cancel()
			if st, err := cli.Status(ctx, *socket); err == nil {
				return fmt.Errorf("portsentry %s runs, and would put it all there again; stop it first, or lift its bans: portsentry unban all", st.Version)
			}
			return clearAway(ctx, stdout)
		},
	}
}

// clearAway takes everything out, in the order in which packets meet it, and says
// what there was. What fails holds up nothing else.
func clearAway(ctx context.Context, stdout io.Writer) error {
	var errs []error
	for _, part := range []struct {
		what  string
		clear func(context.Context) (bool, error)
	}{
		{"the XDP program and its bans", clearXDP},
		{"the firewall table inet portsentry", clearTable},
		{"blackhole routes", route.Clear},
		{"what was in the sets portsentry4 and portsentry6", ipset.Clear},
	} {
		there, err := part.clear(ctx)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", part.what, err))
		case there:
			fmt.Fprintf(stdout, "taken away: %s\n", part.what)
		}
	}
	return errors.Join(errs...)
}

func clearXDP(context.Context) (bool, error) { return bpf.Unload() }

func clearTable(context.Context) (bool, error) { return nft.Remove() }
