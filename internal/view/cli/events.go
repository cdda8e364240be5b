package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portsentry/internal/view"
)

// pastFlags are the flags by which one asks for a part of the past.
type pastFlags struct {
	since, until, source, kind string
	limit                      int
}

// query is what they come to.
func (f *pastFlags) query(now time.Time) (url.Values, error) {
	q := url.Values{}
	var since time.Time
	for _, at := range []struct{ name, text string }{{"since", f.since}, {"until", f.until}} {
		if at.text == "" {
			continue
		}
		t, err := parseTime(at.name, at.text, now)
		if err != nil {
			return nil, err
		}
		if at.name == "since" && t.After(now) {
			return nil, &Error{2, fmt.Sprintf("--since: %.40q is yet to come", at.text), ""}
		}
		if at.name == "until" && since.After(t) {
			return nil, &Error{2, fmt.Sprintf("--since %s is after --until %s: nothing lies between", f.since, f.until), ""}
		}
		since = t
		q.Set(at.name, t.Format(time.RFC3339))
	}
	if f.source != "" {
		p, err := view.ParseTarget(f.source)
		if err != nil {
			return nil, &Error{2, "--source: " + err.Error(), ""}
		}
		q.Set("source", p.String())
	}
	if f.kind != "" {
		kind, err := view.ParseEventKind(f.kind)
		if err != nil {
			return nil, &Error{2, "--kind: " + err.Error(), ""}
		}
		q.Set("kind", kind)
	}
	if f.limit < 0 {
		return nil, &Error{2, fmt.Sprintf("-n %d: must be 1 or more", f.limit), ""}
	}
	if f.limit > 0 {
		q.Set("limit", strconv.Itoa(f.limit))
	}
	return q, nil
}

func eventsCommand(o Options) *cobra.Command {
	var asJSON, exact, follow bool
	var asked pastFlags
	c := &cobra.Command{
		Use:   "events",
		Short: "Say what happened: probes, scans, bans and their ends, changes",
		Long: `Say what happened, newest first: how much was seen of each source, by kind of
probe and span of time, what scans were found, which bans began and ended, and what
was changed by whom. With -f, what happens from now on, one line each, until Ctrl-C.`,
		Example: "  portsentry events --since 1h\n  portsentry events --source 203.0.113.0/24 --kind ban\n  portsentry events -f",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if !follow && asked.limit == 0 {
				asked.limit = usualRows
			}
			q, err := asked.query(o.Now())
			if err != nil {
				return err
			}
			if follow {
				q.Set("follow", "1")
				return o.follow(cmd.Context(), q, asJSON, out)
			}
			var list view.EventList
			if err := o.get(cmd.Context(), view.PathEvents+"?"+q.Encode(), &list, asJSON, out); err != nil || asJSON {
				return err
			}
			return buffered(out, func(w *bufio.Writer) {
				writeEvents(w, &list, o.Now(), width(out), exact, colours(out))
			})
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on")
	c.Flags().StringVar(&asked.since, "since", "", "not what was before this `time`: 1h, 2d, 09:30, 2026-11-21, \"2026-11-21 09:30\"")
	c.Flags().StringVar(&asked.until, "until", "", "not what came after this `time`")
	c.Flags().StringVar(&asked.source, "source", "", "only of this `address` or range")
	c.Flags().StringVar(&asked.kind, "kind", "", "only of this `kind`: of probe (syn, fin, udp, ...), or probes, scan, ban, end, change")
	c.Flags().IntVarP(&asked.limit, "lines", "n", 0, "`lines` at most (default 50; with -f: of what was before)")
	c.Flags().BoolVar(&exact, "exact", false, "exact times instead of \"2 min ago\"")
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(view.EventKinds(), cobra.ShellCompDirectiveNoFileComp))
	return finish(c, &asJSON)
}

// usualRows is how many rows a list of the past has unless asked for.
const usualRows = 50

// heading says how many rows follow, in what order, and whether there are others.
func heading(w *bufio.Writer, n int, what, order string, more bool, others string) {
	_, _ = fmt.Fprintf(w, "%s %s, %s", view.Grouped(uint64(n)), view.Plural(n, what), order)
	if more {
		_, _ = fmt.Fprintf(w, "; there are %s (-n)", others)
	}
	_, _ = w.WriteString("\n")
}

// writeEvents writes the table of events, newest first.
func writeEvents(w *bufio.Writer, list *view.EventList, now time.Time, width int, exact bool, colour bool) {
	if len(list.Events) == 0 {
		_, _ = w.WriteString("nothing happened\n")
		return
	}
	heading(w, len(list.Events), "event", "newest first", list.More, "older ones")
	columns := []column{
		{title: "when"}, {title: "what", paint: whatColour(colour)}, {title: "source"},
		{title: "packets", give: 2, right: true}, {title: "which", give: 1, narrows: true},
	}
	for i := range list.Events {
		e := &list.Events[i]
		at := e.Time
		if e.Last != nil {
			at = *e.Last
		}
		add(columns, ago(at, now, exact), what(e), view.Printable(e.Source), packets(e), view.Printable(e.Text))
	}
	writeTable(w, columns, width)
}

// what is the kind of a probe, and of anything else what it is.
func what(e *view.Event) string {
	if e.Type == view.TypeProbes {
		return view.Printable(e.Kind)
	}
	return view.Printable(e.Type)
}

func packets(e *view.Event) string {
	if e.Type != view.TypeProbes && e.Type != view.TypeScan {
		return ""
	}
	return view.Grouped(e.Count)
}

// whatColour makes stand out what is more than a probe.
func whatColour(colour bool) func(string) string {
	of := map[string]string{
		view.TypeScan: yellow, view.TypeBan: red, view.TypeEnd: green, view.TypeChange: strong, view.TypeLost: strong,
	}
	return func(word string) string { return painted(colour, of[strings.TrimSpace(word)], word) }
}

// follow writes what happens, a line each, until the daemon goes or the caller does.
func (o *Options) follow(ctx context.Context, q url.Values, asJSON bool, out io.Writer) error {
	body, err := o.ask(ctx, http.MethodGet, view.PathEvents+"?"+q.Encode(), asJSON, out)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	row := followed(out, o.Now)
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadBytes('\n')
		switch {
		case err == nil:
		case errors.Is(err, context.Canceled):
			return nil
		default:
			return goneAway()
		}
		if !asJSON {
			var e view.Event
			if err := json.Unmarshal(line, &e); err != nil {
				return cutShort(err)
			}
			line = row(&e)
		}
		if _, err := out.Write(line); err != nil {
			return unwritten(err)
		}
	}
}

// followed makes the line of an event. Its columns stay where they are.
func followed(out io.Writer, now func() time.Time) func(e *view.Event) []byte {
	columns := width(out)
	colour := whatColour(colours(out))
	return func(e *view.Event) []byte {
		begin, word := clock(e.Time, now())+"  ", what(e)
		pad := strings.Repeat(" ", max(0, 8-len(word)))
		source := fmt.Sprintf("  %-15s  ", view.Printable(e.Source))
		text := view.Printable(e.Text)
		if room := columns - len(begin) - max(8, len(word)) - len(source); columns > 0 && room >= minWords {
			text = shorten(text, room)
		}
		return []byte(begin + colour(word) + pad + source + text + "\n")
	}
}

// goneAway ends what was to go on.
func goneAway() error {
	return &Error{1, "portsentry has gone: nothing more is told", "it may be starting again: try portsentry status"}
}
