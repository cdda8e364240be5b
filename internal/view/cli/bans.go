package cli

import (
	"bufio"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"portsentry/internal/view"
)

// column is one column of a table. Addresses never give way to the width of
// the terminal, the columns with the highest give first.
type column struct {
	title string
	give  int // 0: stays
	cells []string
	width int
}

const minWhy = 12 // columns below which the reason is of no use

// writeBans writes the table of bans, newest first.
func writeBans(w *bufio.Writer, bans []view.Ban, now time.Time, width int, exact bool) {
	if len(bans) == 0 {
		_, _ = w.WriteString("no bans\n")
		return
	}
	slices.SortFunc(bans, func(a, b view.Ban) int {
		return cmp.Or(b.Since.Compare(a.Since), a.Prefix.Compare(b.Prefix))
	})
	_, _ = fmt.Fprintf(w, "%s %s\n", grouped(uint64(len(bans))), plural(len(bans), "ban"))

	columns := []column{
		{title: "who"}, {title: "cut off from", give: 1}, {title: "ends"}, {title: "since", give: 3},
		{title: "times", give: 6}, {title: "dropped", give: 4}, {title: "evidence", give: 5}, {title: "why", give: 2},
	}
	for i := range bans {
		b := &bans[i]
		for c, text := range []string{
			who(b.Prefix), cutOff(b), ends(b, now, exact), since(b, now, exact),
			strconv.Itoa(b.Times), dropped(b), evidence(b), printable(b.Reason),
		} {
			columns[c].cells = append(columns[c].cells, text)
		}
	}
	columns = slices.DeleteFunc(columns, func(c column) bool {
		return c.title == "dropped" && !slices.ContainsFunc(bans, func(b view.Ban) bool { return b.Dropped != nil })
	})
	for i := range columns {
		c := &columns[i]
		c.width = utf8.RuneCountInString(c.title)
		for _, text := range c.cells {
			c.width = max(c.width, utf8.RuneCountInString(text))
		}
	}
	columns = fit(columns, width)
	for row := -1; row < len(bans); row++ {
		line := ""
		for _, c := range columns {
			text := c.title
			if row >= 0 {
				text = c.cells[row]
			}
			line += fmt.Sprintf("%-*s  ", c.width, shorten(text, c.width))
		}
		_, _ = w.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// fit narrows the reason and then leaves columns out until the table has at
// most width columns. Width 0 is any.
func fit(columns []column, width int) []column {
	for width > 0 {
		total, first := -2, 0
		for i, c := range columns {
			total += c.width + 2
			if c.give > columns[first].give {
				first = i
			}
		}
		if total <= width || columns[first].give == 0 {
			break
		}
		if why := &columns[len(columns)-1]; why.title == "why" && why.width-(total-width) >= minWhy {
			why.width -= total - width
			break
		}
		columns = slices.Delete(columns, first, first+1)
	}
	return columns
}

func shorten(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-3]) + "..."
}

// who is a prefix as one would write it: a single address without its length.
func who(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// cutOff is what a ban drops, in words: of several methods the one that does most.
func cutOff(b *view.Ban) string {
	has := func(m string) bool { return slices.Contains(b.Methods, m) }
	switch {
	case len(b.Methods) == 0:
		return "nothing: not enforced"
	case has("nftables"), has("xdp"):
	case has("ipset"):
		return "new connections"
	case has("route"):
		return "our answers"
	case has("dryrun"):
		return "nothing: a dry run"
	default: // the owner's steps alone
		return "what " + printable(strings.Join(b.Methods, ", ")) + " does"
	}
	what := printable(b.Strength)
	switch b.Strength {
	case "limited":
		what = "ports without a service"
	case "soft":
		what = "new connections"
	case "full":
		what = "everything"
	}
	if b.Scope != "all" {
		what += ", " + strings.ToUpper(printable(b.Scope)) + " only"
	}
	return what
}

// evidence is the class in words, and whether the address is in use.
func evidence(b *view.Ban) string {
	word := printable(b.Evidence)
	switch b.Evidence {
	case "E1":
		word = "unverified"
	case "E2", "E3":
		return "verified"
	}
	if b.Alive {
		word += ", alive"
	}
	return word
}

// dropped is how many packets a ban has dropped, "" where nobody counts.
func dropped(b *view.Ban) string {
	if b.Dropped == nil {
		return ""
	}
	return grouped(*b.Dropped)
}

func ends(b *view.Ban, now time.Time, exact bool) string {
	switch {
	case b.Until == nil:
		return "by hand only"
	case exact:
		return b.Until.In(now.Location()).Format(time.RFC3339)
	case !b.Until.After(now):
		return "now"
	}
	return "in " + span(b.Until.Sub(now))
}

func since(b *view.Ban, now time.Time, exact bool) string {
	if exact {
		return b.Since.In(now.Location()).Format(time.RFC3339)
	}
	return span(now.Sub(b.Since)) + " ago"
}

// writeLifted says which bans are gone and what they were.
func writeLifted(w *bufio.Writer, done *view.Unbanned, now time.Time) {
	for i := range done.Lifted {
		b := &done.Lifted[i]
		name := who(b.Prefix)
		if !b.Prefix.IsSingleIP() && b.Prefix.Contains(done.Address) && b.Prefix.Addr() != done.Address {
			name += ", with " + done.Address.String() + " in it,"
		}
		left := "until undone by hand"
		if b.Until != nil {
			left = span(b.Until.Sub(now)) + " left"
		}
		times := ""
		if b.Times > 1 {
			times = fmt.Sprintf(", banned %d times so far", b.Times)
		}
		if b.Dropped != nil {
			times += fmt.Sprintf(", %s %s dropped", dropped(b), plural(int(*b.Dropped), "packet"))
		}
		_, _ = fmt.Fprintf(w, "%s is no longer banned (was cut off from %s, %s%s; %s)\n", name, cutOff(b), left, times, printable(b.Reason))
	}
}
