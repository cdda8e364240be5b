package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"portsentry/internal/view"
)

func healthCommand(o Options) *cobra.Command {
	var asJSON, quiet bool
	c := &cobra.Command{
		Use:   "health",
		Short: "Say in one line whether all is well; the exit status says it too",
		Long: `Say in one line whether all is well.

The exit status is 0 if it is, 1 if it is not and 2 if nobody answers, for
scripts and for those who watch over services.`,
		Example: "  portsentry health -q || mail -s \"portsentry is not well\" root </dev/null",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if quiet {
				out = io.Discard
			}
			err := o.health(cmd.Context(), asJSON, out)
			if err != nil && quiet {
				return &Error{Code: ExitCode(err)}
			}
			return err
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "say nothing: the exit status does")
	return finish(c, &asJSON)
}

// health asks, and is no error when all is well.
func (o *Options) health(ctx context.Context, asJSON bool, out io.Writer) error {
	body, err := o.ask(ctx, http.MethodGet, view.PathHealth, asJSON, out)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	in := io.Reader(body)
	if asJSON {
		in = io.TeeReader(body, out)
	}
	var h view.Health
	if err := decode(in, &h); err != nil {
		return err
	}
	switch {
	case !h.OK && asJSON:
		return &Error{Code: 1}
	case !h.OK:
		return &Error{1, view.Printable(strings.Join(h.Problems, "; ")), ""}
	case asJSON:
		return nil
	}
	return buffered(out, func(w *bufio.Writer) { fmt.Fprintln(w, healthWords(&h)) })
}

// healthWords is the line about a daemon that is well.
func healthWords(h *view.Health) string {
	if h.Bans == 0 { // or nobody has looked yet
		return "ok"
	}
	return fmt.Sprintf("ok; %s of %s bans enforced", view.Grouped(uint64(max(h.Enforced, 0))), view.Grouped(uint64(max(h.Bans, 0))))
}
