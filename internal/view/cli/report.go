package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portsentry/internal/view"
)

// formats are the forms of a report.
var formats = map[string]func(w *bufio.Writer, r *view.Report, now time.Time, width int) error{
	"text": writeReport, "markdown": writeMarkdown, "html": writeHTML,
}

func reportCommand(o Options) *cobra.Command {
	var asJSON bool
	var since, until, format string
	c := &cobra.Command{
		Use:     "report",
		Short:   "Sum up what happened: who, how much, which ports, what was learned, bans and their ends",
		Example: "  portsentry report\n  portsentry report --since 7d --format html > report.html",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write := formats[format]
			if write == nil && format != "json" {
				return &Error{2, fmt.Sprintf("--format: %.30q is none of text, markdown, html, json", format), ""}
			}
			asked := pastFlags{since: since, until: until}
			q, err := asked.query(o.Now())
			if err != nil {
				return err
			}
			var r view.Report
			out := cmd.OutOrStdout()
			asJSON = asJSON || format == "json"
			if err := o.get(cmd.Context(), view.PathReport+"?"+q.Encode(), &r, asJSON, out); err != nil || asJSON {
				return err
			}
			return report(out, func(w *bufio.Writer) error { return write(w, &r, o.Now(), reportWidth(out)) })
		},
	}
	c.Flags().StringVar(&since, "since", "24h", "from this `time` on: 1h, 7d, 2026-11-21, \"2026-11-21 09:30\"")
	c.Flags().StringVar(&until, "until", "", "up to this `time`")
	c.Flags().StringVar(&format, "format", "text", "`form`: text, markdown, html, json")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "markdown", "html", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return finish(c, &asJSON)
}

// report is buffered for what may fail by itself.
func report(out io.Writer, write func(w *bufio.Writer) error) (err error) {
	if said := buffered(out, func(w *bufio.Writer) { err = write(w) }); err == nil {
		err = said
	}
	return err
}

// reportWidth is that of the terminal, and 80 in a mail.
func reportWidth(out io.Writer) int {
	if n := width(out); n > 0 {
		return n
	}
	return 80
}

// section is a table of a report in any form.
type section struct {
	title   string
	heads   []string
	numbers []bool // of the columns
	rows    [][]string
	none    string // what is said where there are no rows; "": nothing at all
}

// headlines are the sentences on top.
func headlines(r *view.Report) []string {
	lines := []string{
		fmt.Sprintf("%s of %s; %s of them counted as a scan", some(r.Probes, "packet"), some(r.Sources, "source"), view.Grouped(r.Triggered)),
		fmt.Sprintf("%s began, %s ended, %s in force now", some(r.Begun, "ban"), view.Grouped(r.Ended), view.Grouped(r.Stand)),
	}
	if r.Together > 0 {
		lines = append(lines, view.Grouped(r.Together)+" of the packets are of more sources than are kept apart")
	}
	return lines
}

// some is a number with its noun.
func some(n uint64, noun string) string {
	return view.Grouped(n) + " " + view.Plural(int(min(n, 2)), noun)
}

// period is what a report is about.
func period(r *view.Report, zone *time.Location) string {
	const layout = "2 Jan 2006 15:04"
	return r.Since.In(zone).Format(layout) + " to " + r.Until.In(zone).Format(layout+" MST")
}

// sections are the tables of r.
func sections(r *view.Report, now time.Time) []section {
	sources := section{title: "Sources", heads: []string{"who", "packets", "ports", "kinds", "bans", "with", "name"}, numbers: []bool{false, true, true, false, true, false, false}, none: "nobody was seen"}
	for i := range r.TopSources {
		s := &r.TopSources[i]
		sources.rows = append(sources.rows, []string{s.Address.String(), view.Grouped(s.Probes), view.Grouped(uint64(s.Ports)), strings.Join(s.Kinds, ", "), view.Grouped(uint64(s.Bans)), s.Tool, s.Name})
	}
	bans := section{title: "Latest bans", heads: []string{"who", "began", "for", "ended", "why"}, numbers: make([]bool, 5)}
	for i := range r.Bans {
		b := &r.Bans[i]
		row := []string{view.Who(b.Prefix), b.Since.In(now.Location()).Format("2 Jan 15:04"), "by hand only", "", b.Reason}
		if b.Until != nil {
			row[2] = view.Span(b.Until.Sub(b.Since).Round(time.Second)) // they are read one after the other
		}
		if b.Ended != nil {
			row[3] = b.Ending
		}
		if b.By != "" {
			row[4] = "by " + b.By + ": " + row[4]
		}
		bans.rows = append(bans.rows, row)
	}
	out := []section{
		sources,
		tallies("Ports", "port", r.TopPorts),
		tallies("Kinds of probe", "kind", r.Kinds),
	}
	if r.Answered != nil {
		learned := tallies("What was learned", "port of ours", r.Answered)
		learned.heads[1] = "connected, then banned"
		learned.none = "nobody who was banned had connected to a port that is served here before"
		out = append(out, learned)
	}
	return append(out, tallies("How bans ended", "end", r.Endings), bans)
}

func tallies(title, head string, list []view.Tally) section {
	s := section{title: title, heads: []string{head, "count", ""}, numbers: []bool{false, true, false}}
	for _, t := range list {
		s.rows = append(s.rows, []string{t.What, view.Grouped(t.Count), t.Note})
	}
	return s
}

// trimmed is s without columns in which there is nothing.
func (s *section) trimmed() (columns []column) {
	for i, head := range s.heads {
		c := column{title: head, right: s.numbers[i], give: i, narrows: i == len(s.heads)-1}
		some := false
		for _, row := range s.rows {
			c.cells = append(c.cells, view.Printable(row[i]))
			some = some || row[i] != ""
		}
		if some {
			columns = append(columns, c)
		}
	}
	return columns
}

// writeReport writes r as text.
func writeReport(w *bufio.Writer, r *view.Report, now time.Time, width int) error {
	wrapped(w, "", 0, view.Printable(r.Host)+": "+period(r, now.Location()), width)
	for _, line := range headlines(r) {
		wrapped(w, "", 0, line, width)
	}
	for _, s := range sections(r, now) {
		if len(s.rows) == 0 && s.none == "" {
			continue
		}
		_, _ = w.WriteString("\n" + s.title + "\n")
		if len(s.rows) == 0 {
			wrapped(w, "", 0, s.none, width)
			continue
		}
		writeTable(w, s.trimmed(), width)
	}
	_, _ = w.WriteString("\nportsentry " + view.Printable(r.Version) + "\n")
	return nil
}

// writeMarkdown writes r as Markdown, tables as GitHub has them.
func writeMarkdown(w *bufio.Writer, r *view.Report, now time.Time, _ int) error {
	_, _ = fmt.Fprintf(w, "# Portsentry on %s\n\n%s\n\n", marked(r.Host), period(r, now.Location()))
	for _, line := range headlines(r) {
		_, _ = fmt.Fprintf(w, "- %s\n", line)
	}
	for _, s := range sections(r, now) {
		if len(s.rows) == 0 && s.none == "" {
			continue
		}
		_, _ = fmt.Fprintf(w, "\n## %s\n\n", s.title)
		if len(s.rows) == 0 {
			_, _ = fmt.Fprintf(w, "%s\n", s.none)
			continue
		}
		columns := s.trimmed()
		rule := "|"
		_, _ = w.WriteString("|")
		for _, c := range columns {
			_, _ = w.WriteString(" " + c.title + " |")
			if c.right {
				rule += " ---: |"
			} else {
				rule += " --- |"
			}
		}
		_, _ = w.WriteString("\n" + rule + "\n")
		for row := range s.rows {
			_, _ = w.WriteString("|")
			for _, c := range columns {
				_, _ = w.WriteString(" " + marked(c.cells[row]) + " |")
			}
			_, _ = w.WriteString("\n")
		}
	}
	_, _ = fmt.Fprintf(w, "\nportsentry %s\n", marked(r.Version))
	return nil
}

// marked is text that means nothing in Markdown or HTML.
func marked(s string) string {
	var b strings.Builder
	for _, r := range view.Printable(s) {
		if strings.ContainsRune("\\`*_{}[]<>|#!~&", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
