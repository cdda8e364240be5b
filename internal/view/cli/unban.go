package cli

import (
	"bufio"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"portsentry/internal/view"
)

func unbanCommand(o Options) *cobra.Command {
	var asJSON bool
	var within string
	c := &cobra.Command{
		Use:   "unban ADDRESS|RANGE|all",
		Short: "Lift bans and undo what was done to their hosts",
		Long: `Lift every ban of an address or inside a range, and that of a range it lies in.
Commands that were run are undone where an undo is configured for them.`,
		Example: `  portsentry unban 203.0.113.9
  portsentry unban 2001:db8:1:2::/64
  portsentry unban all --confirm-within 5m`,
		Args: oneTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, path := netip.Prefix{}, view.PathBans+"/"+view.All
			if args[0] != view.All {
				var err error
				if p, err = target(args); err != nil {
					return err
				}
				path = banPath(p)
			}
			if err := checkWithin(within); err != nil {
				return err
			}
			var done view.Unbanned
			if err := o.change(cmd, http.MethodDelete, path, url.Values{view.QueryWithin: {within}}, asJSON, &done); err != nil {
				return err
			}
			switch {
			case len(done.Lifted) > 0:
			case !p.IsValid():
				return &Error{1, "nobody is banned", ""}
			default:
				return notBanned(p)
			}
			if asJSON {
				return nil
			}
			return buffered(cmd.OutOrStdout(), func(w *bufio.Writer) {
				writeLifted(w, p, &done, o.Now())
				what := "it is banned again"
				if len(done.Lifted) > 1 {
					what = "they are banned again"
				}
				writePending(w, done.Pending, done.Confirm, what, o.Now())
			})
		},
	}
	withinFlag(c, &within)
	c = finish(c, &asJSON)
	c.ValidArgsFunction = o.completeBanned
	return c
}

// notBanned says that there was nothing to lift.
func notBanned(p netip.Prefix) error {
	if p.IsSingleIP() {
		return &Error{1, view.Who(p) + " is not banned", ""}
	}
	return &Error{1, "nobody in " + view.Who(p) + " is banned", ""}
}

// maxLifted is how many bans are named of many that were lifted at once.
const maxLifted = 20

// writeLifted says which bans in or around p are gone and what they were.
func writeLifted(w *bufio.Writer, p netip.Prefix, done *view.Unbanned, now time.Time) {
	for i := range done.Lifted {
		if i == maxLifted {
			left := len(done.Lifted) - i
			_, _ = fmt.Fprintf(w, "and %s more %s no longer banned\n", view.Grouped(uint64(left)), isAre(left))
			return
		}
		b := &done.Lifted[i]
		name := view.Who(b.Prefix)
		if p.IsValid() && b.Prefix.Bits() < p.Bits() {
			name += ", with " + view.Who(p) + " in it,"
		}
		left := "until undone by hand"
		if b.Until != nil {
			left = view.Span(b.Until.Sub(now)) + " left"
		}
		times := ""
		if b.Times > 1 {
			times = fmt.Sprintf(", banned %d times so far", b.Times)
		}
		if b.Dropped != nil {
			times += fmt.Sprintf(", %s %s dropped", dropped(b), view.Plural(int(*b.Dropped), "packet"))
		}
		_, _ = fmt.Fprintf(w, "%s is no longer banned (was cut off from %s, %s%s; %s)\n", name, cutOff(b), left, times, view.Printable(b.Reason))
	}
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
