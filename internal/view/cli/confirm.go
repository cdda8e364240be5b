package cli

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portsentry/internal/view"
)

func pendingCommand(o Options) *cobra.Command {
	return tellCommand(o, "pending", "List the changes that are taken back unless they are confirmed", view.PathPending, writeWaiting)
}

func writeWaiting(w *bufio.Writer, answer *view.PendingList, now time.Time, width int) {
	list := answer.Pending
	if len(list) == 0 {
		_, _ = w.WriteString("nothing waits to be confirmed\n")
		return
	}
	columns := []column{{title: "number"}, {title: "taken back"}, {title: "since", give: 2}, {title: "by", give: 1}, {title: "change", narrows: true}}
	for _, p := range list {
		add(columns, strconv.FormatUint(p.Number, 10), "in "+view.Span(p.Confirm.Sub(now)), view.Span(now.Sub(p.Since))+" ago",
			fmt.Sprintf("uid %d (pid %d)", p.UID, p.PID), view.Printable(p.Change))
	}
	writeTable(w, columns, width)
}

func confirmCommand(o Options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "confirm [NUMBER]",
		Short:   "Let a change stand that would be taken back otherwise",
		Long:    `Let a change stand that was made with --confirm-within. Without its number it is the only one that waits, or the only one of yours.`,
		Example: "  portsentry confirm\n  portsentry confirm 3",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) <= 1 {
				return nil
			}
			return &Error{2, fmt.Sprintf("confirm takes one number, not %d", len(args)), "for example: portsentry confirm 3"}
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			number, err := o.waiting(cmd, args)
			if err != nil {
				return err
			}
			var p view.Pending
			path := view.PathPending + "/" + strconv.FormatUint(number, 10)
			if err := o.change(cmd, http.MethodPost, path, nil, asJSON, &p); err != nil || asJSON {
				return err
			}
			return buffered(cmd.OutOrStdout(), func(w *bufio.Writer) {
				_, _ = fmt.Fprintf(w, "confirmed, it stands: %s\n", view.Printable(p.Change))
			})
		},
	}
	c = finish(c, &asJSON)
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
		if len(args) == 0 {
			list, _ := o.pending(cmd.Context())
			for _, p := range list {
				out = append(out, strconv.FormatUint(p.Number, 10)+"\t"+view.Printable(p.Change))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// waiting is the number of the change that is meant.
func (o *Options) waiting(cmd *cobra.Command, args []string) (uint64, error) {
	if len(args) == 1 {
		n, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil {
			return 0, &Error{2, fmt.Sprintf("%.30q is no number of a change", args[0]), "portsentry pending lists them"}
		}
		return n, nil
	}
	list, err := o.pending(cmd.Context())
	if err != nil {
		return 0, err
	}
	if len(list) > 1 {
		mine := slices.DeleteFunc(slices.Clone(list), func(p view.Pending) bool { return p.UID != os.Getuid() })
		if len(mine) == 1 {
			list = mine
		}
	}
	switch len(list) {
	case 0:
		return 0, &Error{1, "nothing waits to be confirmed", ""}
	case 1:
		return list[0].Number, nil
	}
	var all []string
	for _, p := range list {
		all = append(all, fmt.Sprintf("%d (%s)", p.Number, view.Printable(p.Change)))
	}
	const most = 5
	if more := len(all) - most; more > 0 {
		all = append(all[:most], fmt.Sprintf("%d more", more))
	}
	return 0, &Error{2, fmt.Sprintf("%d changes wait to be confirmed; say which: %s", len(list), strings.Join(all, ", ")), "portsentry confirm NUMBER"}
}
