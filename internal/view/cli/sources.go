package cli

import (
	"bufio"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portsentry/internal/view"
)

func sourcesCommand(o Options) *cobra.Command {
	var asJSON, exact bool
	var asked pastFlags
	c := &cobra.Command{
		Use:     "sources",
		Short:   "List who was seen, the latest first",
		Example: "  portsentry sources --since 1d\n  portsentry sources --source 2001:db8::/32",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if asked.limit == 0 {
				asked.limit = usualRows
			}
			q, err := asked.query(o.Now())
			if err != nil {
				return err
			}
			var list view.SourceList
			if err := o.get(cmd.Context(), view.PathSources+"?"+q.Encode(), &list, asJSON, out); err != nil || asJSON {
				return err
			}
			return buffered(out, func(w *bufio.Writer) {
				writeSources(w, &list, o.Now(), width(out), exact, colours(out))
			})
		},
	}
	c.Flags().StringVar(&asked.since, "since", "", "not who was last seen before this `time`: 1h, 2d, 09:30, 2026-11-21")
	c.Flags().StringVar(&asked.source, "source", "", "only this `address`, or those of this range")
	c.Flags().IntVarP(&asked.limit, "lines", "n", 0, "`lines` at most (default 50)")
	c.Flags().BoolVar(&exact, "exact", false, "exact times instead of \"2 min ago\"")
	return finish(c, &asJSON)
}

// writeSources writes the table of sources.
func writeSources(w *bufio.Writer, list *view.SourceList, now time.Time, width int, exact bool, colour bool) {
	if len(list.Sources) == 0 {
		_, _ = w.WriteString("nobody was seen\n")
		return
	}
	heading(w, len(list.Sources), "source", "the latest first", list.More, "more")
	columns := []column{
		{title: "who"}, {title: "seen"}, {title: "packets", give: 1, right: true}, {title: "ports", give: 3, right: true},
		{title: "kinds", give: 4}, {title: "evidence", give: 6}, {title: "bans", give: 5, right: true},
		{title: "now", give: 2, paint: func(s string) string { return painted(colour, red, s) }},
		{title: "with", give: 7}, {title: "name", give: 8, narrows: true},
	}
	for i := range list.Sources {
		s := &list.Sources[i]
		state := ""
		if s.Banned {
			state = "banned"
		}
		add(columns, s.Address.String(), ago(s.Last, now, exact), view.Grouped(s.Probes), view.Grouped(uint64(s.Ports)),
			view.Printable(strings.Join(s.Kinds, ",")), evidenceWord(s.Evidence), strconv.Itoa(s.Bans), state, view.Printable(s.Tool), view.Printable(s.Name))
	}
	empty := func(c column) bool {
		return !slices.ContainsFunc(c.cells, func(cell string) bool { return cell != "" })
	}
	writeTable(w, slices.DeleteFunc(columns, empty), width)
}

// evidenceWord is the class of evidence in words.
func evidenceWord(class string) string {
	switch class {
	case "E0":
		return "noise"
	case "E1":
		return "unverified"
	case "E2", "E3":
		return "verified"
	}
	return view.Printable(class)
}
