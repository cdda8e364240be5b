package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"portsentry/internal/view"
)

// withinFlag adds the flag of changes that are taken back unless they are confirmed.
func withinFlag(c *cobra.Command, within *string) {
	c.Flags().StringVar(within, "confirm-within", "", "take it back after this `time` unless it is confirmed (portsentry confirm)")
	_ = c.RegisterFlagCompletionFunc("confirm-within", cobra.NoFileCompletions)
}

// change asks for a change. Parameters without a value are left out.
func (o *Options) change(cmd *cobra.Command, method, path string, q url.Values, asJSON bool, v any) error {
	for name := range q {
		if q.Get(name) == "" {
			q.Del(name)
		}
	}
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	body, err := o.ask(cmd.Context(), method, path, asJSON, cmd.OutOrStdout())
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	in := io.Reader(body)
	if asJSON {
		in = io.TeeReader(body, cmd.OutOrStdout())
	}
	return decode(in, v)
}

// checkWithin reads --confirm-within as the daemon will.
func checkWithin(within string) error {
	if within == "" {
		return nil
	}
	if _, err := view.ParseWithin(within); err != nil {
		return &Error{2, "--confirm-within: " + err.Error(), ""}
	}
	return nil
}

// target reads the one argument, an address or a range.
func target(args []string) (netip.Prefix, error) {
	p, err := view.ParseTarget(args[0])
	if err != nil {
		return p, &Error{2, err.Error(), ""}
	}
	return p, nil
}

// oneTarget is for commands that take an address or a range.
func oneTarget(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return &Error{2, fmt.Sprintf("%s takes one address, not %d", c.Name(), len(args)), "for example: portsentry " + c.Name() + " 203.0.113.9"}
}

// banPath is where the ban of p is.
func banPath(p netip.Prefix) string { return view.PathBans + "/" + url.PathEscape(view.Who(p)) }

// writePending says what becomes of a change that is not confirmed, if it is to be.
func writePending(w *bufio.Writer, number uint64, by *time.Time, otherwise string, now time.Time) {
	if number == 0 || by == nil {
		return
	}
	_, _ = fmt.Fprintf(w, "%s in %s unless you confirm it: portsentry confirm %d\n", otherwise, view.Span(by.Sub(now).Round(time.Second)), number)
}

// completeBanned offers who is banned, the first hundred.
func (o *Options) completeBanned(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var list view.BanList
	if o.get(ctx, view.PathBans, &list, false, io.Discard) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	const most = 100
	out := []string{view.All}
	for i := range list.Bans {
		if b := &list.Bans[i]; len(out) <= most {
			out = append(out, view.Who(b.Prefix)+"\t"+view.Printable(b.Reason))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (o *Options) pending(ctx context.Context) ([]view.Pending, error) {
	var list view.PendingList
	err := o.get(ctx, view.PathPending, &list, false, io.Discard)
	return list.Pending, err
}

func reloadCommand(o Options) *cobra.Command {
	var asJSON bool
	var within string
	c := &cobra.Command{
		Use:   "reload",
		Short: "Have the daemon read its configuration again, and say what is wrong with it",
		Long: `Have the daemon read its configuration again, as SIGHUP does. With any mistake in
it the one from before stays in force, and every mistake is shown.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkWithin(within); err != nil {
				return err
			}
			var done view.Changed
			if err := o.change(cmd, http.MethodPost, view.PathReload, url.Values{view.QueryWithin: {within}}, asJSON, &done); err != nil || asJSON {
				return err
			}
			return buffered(cmd.OutOrStdout(), func(w *bufio.Writer) {
				_, _ = w.WriteString(view.Printable(done.Text) + "\n")
				writePending(w, done.Pending, done.Confirm, "the one from before is put in force again", o.Now())
			})
		},
	}
	withinFlag(c, &within)
	return finish(c, &asJSON)
}
