package cli

import (
	"bufio"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portsentry/internal/host"
	"portsentry/internal/view"
)

func banCommand(o Options) *cobra.Command {
	var asJSON, force bool
	var length, reason, within string
	c := &cobra.Command{
		Use:   "ban ADDRESS|RANGE",
		Short: "Cut an address or a range off from everything",
		Long: `Cut an address or a range off from everything, whatever it did.

It is refused for who is needed: gateways, resolvers, time servers, whom the
ignore file names, who is connected to a service, and wherever you are logged in
from. --force, which is root's, bans them all the same, but never this host
itself. Members of group ` + view.Group + ` may ban single addresses and IPv6 /64
networks; ranges are root's.`,
		Example: `  portsentry ban 203.0.113.9
  portsentry ban 203.0.113.0/24 --for 1d --reason "ticket 4711"
  portsentry ban 2001:db8::/32 --confirm-within 5m`,
		Args: oneTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := target(args)
			if err != nil {
				return err
			}
			if length != "" {
				if _, err := view.ParseLength(length); err != nil {
					return &Error{2, "--for: " + err.Error(), ""}
				}
			}
			if _, err := view.CheckReason(reason); err != nil {
				return &Error{2, "--reason: " + err.Error(), ""}
			}
			if err := checkWithin(within); err != nil {
				return err
			}
			q := url.Values{"for": {length}, "reason": {reason}, view.QueryWithin: {within}}
			// The daemon may not look into other processes.
			q.Set("from", view.ShowFrom(host.LoginOf(os.Getpid())))
			if force {
				q.Set("force", "true")
			}
			var done view.Changed
			if err := o.change(cmd, http.MethodPost, banPath(p), q, asJSON, &done); err != nil || asJSON {
				return err
			}
			return buffered(cmd.OutOrStdout(), func(w *bufio.Writer) { writeBanned(w, &done, o.Now()) })
		},
	}
	c.Flags().StringVar(&length, "for", "", "how long, a `time` as 90s, 10m, 1h30m, 1d or 2w; without it BAN_TIME")
	c.Flags().StringVar(&reason, "reason", "", "why, a `text` of one line: bans and why show it")
	c.Flags().BoolVar(&force, "force", false, "also who is needed or connected, or where you are logged in from (root)")
	withinFlag(c, &within)
	for _, flag := range []string{"for", "reason"} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
	return finish(c, &asJSON)
}

// writeBanned says what was banned, and what does it.
func writeBanned(w *bufio.Writer, done *view.Changed, now time.Time) {
	_, _ = w.WriteString(view.Printable(done.Text))
	for i := range done.Bans {
		b := &done.Bans[i]
		_, _ = fmt.Fprintf(w, ", cut off from %s", cutOff(b))
		if len(b.Methods) > 0 {
			_, _ = fmt.Fprintf(w, " (%s)", view.Printable(strings.Join(b.Methods, ", ")))
		}
	}
	_ = w.WriteByte('\n')
	writePending(w, done.Pending, done.Confirm, "it is lifted", now)
}
