package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portsentry/internal/view"
)

func whyCommand(o Options) *cobra.Command {
	var asJSON, exact bool
	var pcap string
	c := &cobra.Command{
		Use:   "why ADDR",
		Short: "Say why an address is banned, or why not: what it did, by which rule, until when",
		Long: `Say why an address is banned, or why not: what it did, the packets that decided,
the settings that led to it, how the length of the ban came about, and how to undo it.

With --pcap, write those packets as a capture, for tcpdump -r, Wireshark or
"portsentry replay". Their headers are rebuilt: options and payloads are not kept.`,
		Example: "  portsentry why 203.0.113.9\n  portsentry why 203.0.113.9 --pcap - | tcpdump -n -r -",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return nil
			}
			return &Error{2, fmt.Sprintf("why takes one address, not %d", len(args)), "for example: portsentry why 203.0.113.9"}
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := target(args)
			if err != nil {
				return err
			}
			a := p.Addr()
			if !p.IsSingleIP() {
				return &Error{2, fmt.Sprintf("why takes one address, and %s is a range", p), "ask about one in it: portsentry why " + a.String()}
			}
			if asJSON && pcap != "" {
				return &Error{2, "--json and --pcap are two answers", "give one of them"}
			}
			var y view.Why
			out := cmd.OutOrStdout()
			path := view.PathWhy + "/" + url.PathEscape(a.String())
			body, err := o.ask(cmd.Context(), http.MethodGet, path, asJSON, out)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			in := io.Reader(body)
			if asJSON {
				in = io.TeeReader(body, out)
			}
			if err := decode(in, &y); err != nil {
				return err
			}
			switch {
			case y.Verdict == view.VerdictUnknown:
				return &Error{1, verdict(&y, o.Now(), exact), ""}
			case asJSON:
				return nil
			case pcap != "":
				return keepPcap(out, cmd.ErrOrStderr(), pcap, &y)
			}
			return buffered(out, func(w *bufio.Writer) { writeWhy(w, &y, o.Now(), width(out), exact, colours(out)) })
		},
	}
	c.Flags().StringVar(&pcap, "pcap", "", "write the packets to this `file` as a capture, \"-\" for standard output")
	c.Flags().BoolVar(&exact, "exact", false, "exact times instead of \"2 min ago\"")
	return finish(c, &asJSON)
}

// keepPcap writes the packets of y to the file at path, or to out for "-".
func keepPcap(out, said io.Writer, path string, y *view.Why) (err error) {
	if len(y.Packets) == 0 {
		return &Error{1, "no packet of " + y.Address.String() + " is kept", ""}
	}
	if path == "-" {
		if width(out) > 0 && os.Getenv("COLUMNS") == "" {
			return &Error{2, "a capture is nothing for a terminal", "name a file, or pipe it into tcpdump -r -"}
		}
		return writePcap(out, y.Packets)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		err = errors.Join(writePcap(f, y.Packets), f.Close())
	}
	if err != nil {
		return &Error{2, "cannot write the capture: " + err.Error(), ""}
	}
	n := len(y.Packets)
	_, _ = fmt.Fprintf(said, "%d %s in %s: headers as they were, rebuilt; options and payloads are not kept\n", n, view.Plural(n, "packet"), path)
	return nil
}

// writeWhy writes y for a person: the first line answers the question.
func writeWhy(w *bufio.Writer, y *view.Why, now time.Time, width int, exact, colour bool) {
	wrapped(w, "", 0, verdict(y, now, exact), width)
	if y.Summary != "" {
		wrapped(w, "", 0, view.Printable(y.Summary), width)
	}
	writePackets(w, y.Packets, now, width, exact)
	if len(y.Rules) > 0 {
		wrapped(w, "rules", labels, rules(y.Rules), width)
	}
	label := "reckoned"
	for _, s := range y.Arithmetic {
		wrapped(w, label, labels, view.Printable(s), width)
		label = ""
	}
	label = "before"
	for i := range y.Past {
		wrapped(w, label, labels, pastBan(&y.Past[i], now, exact), width)
		label = ""
	}
	if s := y.Seen; s != nil {
		wrapped(w, "seen", labels, seen(s, now, exact), width)
	}
	if y.Ban != nil {
		wrapped(w, "undo", labels, painted(colour, strong, "portsentry unban "+view.Who(y.Ban.Prefix)), 0)
		if y.Ban.Note != "" {
			wrapped(w, "", labels, "but "+view.Printable(y.Ban.Note), width)
		}
	}
	if y.IgnoreFile != "" && y.Verdict != view.VerdictSpared {
		wrapped(w, "never", labels, painted(colour, strong, fmt.Sprintf("echo %s >> %s", y.Address, view.Printable(y.IgnoreFile))), 0)
	}
}

// rules are settings in a line. Their file is named once.
func rules(list []view.Rule) string {
	words := make([]string, len(list))
	file, defaults := "", ""
	for i, r := range list {
		words[i] = view.Printable(r.Key) + "=" + shorten(view.Printable(r.Value), 24)
		switch in, line, ok := strings.Cut(r.Where, ":"); {
		case !ok:
			defaults = "; what has no line is the default"
		case in == file:
			words[i] += " (:" + view.Printable(line) + ")"
		default:
			words[i] += " (" + view.Printable(r.Where) + ")"
			file = in
		}
	}
	return strings.Join(words, ", ") + defaults
}

// verdict is the answer, in a sentence.
func verdict(y *view.Why, now time.Time, exact bool) string {
	name := y.Address.String()
	if y.Name != "" {
		name += " (" + view.Printable(y.Name) + ")"
	}
	switch {
	case y.Ban != nil:
		b := y.Ban
		of := ""
		if !b.Prefix.IsSingleIP() {
			of = ", with all of " + b.Prefix.String() + ","
		}
		by := ""
		if b.By != "" {
			by = " by " + view.Printable(b.By)
		}
		facts := []string{cutOff(&b.Ban), times(b.Times), evidence(&b.Ban)}
		if b.Dropped != nil {
			facts = append(facts, fmt.Sprintf("%s %s dropped", dropped(&b.Ban), view.Plural(int(*b.Dropped), "packet")))
		}
		return name + of + " is banned" + by + " " + howLong(b, now, exact) + " (" + strings.Join(facts, "; ") + ")"
	case y.Verdict == view.VerdictSpared:
		return name + " is never acted on: " + view.Printable(y.Spared)
	case y.Verdict == view.VerdictSeen && len(y.Past) > 0:
		return name + " is not banned any more"
	case y.Verdict == view.VerdictSeen:
		return name + " was seen, and is not banned"
	}
	return name + " is unknown: nothing was seen of it, as far as portsentry remembers"
}

// howLong is until when a ban stands that does.
func howLong(b *view.PastBan, now time.Time, exact bool) string {
	switch {
	case b.Until == nil:
		return "until somebody undoes it by hand"
	case exact:
		return "until " + b.Until.In(now.Location()).Format(time.RFC3339)
	}
	return "for another " + view.Span(b.Until.Sub(now))
}

// times is how often somebody has been banned.
func times(n int) string {
	words := [...]string{"first", "second", "third"}
	switch {
	case n >= 1 && n <= len(words):
		return words[n-1] + " time"
	case n < 1:
		return "not counted"
	}
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		suffix = [...]string{"th", "st", "nd", "rd", "th", "th", "th", "th", "th", "th"}[n%10]
	}
	return fmt.Sprintf("%d%s time", n, suffix)
}

// pastBan is a ban that has ended, in a line.
func pastBan(b *view.PastBan, now time.Time, exact bool) string {
	s := "banned " + ago(b.Since, now, exact)
	if b.By != "" {
		s += " by " + view.Printable(b.By)
	}
	if b.Ended != nil {
		s += " for " + view.Span(b.Ended.Sub(b.Since)) + ", " + cmp.Or(view.Printable(b.Ending), "ended")
		if b.EndedBy != "" {
			s += " by " + view.Printable(b.EndedBy)
		}
	}
	return s + ": " + view.Printable(b.Reason)
}

// seen is what is known of a source, in a line.
func seen(s *view.Source, now time.Time, exact bool) string {
	least := "" // ports are counted in each span of time and kind by themselves
	if s.Probes > uint64(s.Ports) {
		least = "at least "
	}
	out := fmt.Sprintf("%s %s to %s%s %s (%s), first %s, last %s", view.Grouped(s.Probes), view.Plural(int(s.Probes), "packet"),
		least, view.Grouped(uint64(s.Ports)), view.Plural(int(s.Ports), "port"), view.Printable(strings.Join(s.Kinds, ", ")), ago(s.First, now, exact), ago(s.Last, now, exact))
	if s.Tool != "" {
		out += "; with " + view.Printable(s.Tool)
	}
	if s.Campaign != "" {
		out += "; campaign " + view.Printable(s.Campaign)
	}
	return out
}

// writePackets writes packets below each other.
func writePackets(w *bufio.Writer, packets []view.Packet, now time.Time, width int, exact bool) {
	columns := []column{{}, {}, {}, {narrows: true}}
	for i := range packets {
		p := &packets[i]
		at := clock(p.Time, now)
		if exact {
			at = p.Time.In(now.Location()).Format("2006-01-02T15:04:05.000000Z07:00")
		}
		to := view.Printable(p.Protocol)
		if p.DestinationPort != 0 {
			to = fmt.Sprintf("%d/%s", p.DestinationPort, to)
		}
		how := view.Printable(cmp.Or(p.Flags, p.Kind))
		if p.Kind == "connect" {
			how = p.Kind
		}
		add(columns, "  "+at, to, how, view.Printable(p.Text))
	}
	writeTable(w, columns, width)
}
