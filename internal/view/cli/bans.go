package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"portsentry/internal/view"
)

// eachBan hands the bans on one by one, while the daemon is still writing them: there may
// be a million.
func (o *Options) eachBan(ctx context.Context, take func(b *view.Ban)) error {
	body, err := o.ask(ctx, http.MethodGet, view.PathBans, false, io.Discard)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return cutShort(readBans(body, take))
}

// banTable is the table of bans while they come in. Of a ban only its row is kept, as text:
// some 150 bytes.
type banTable struct {
	now     time.Time
	exact   bool
	columns []column // without cells
	rows    []banRow
	counted bool   // somebody counts what is dropped
	text    []byte // of the row that is made
}

// banRow is a row, and what it is sorted by.
type banRow struct {
	second int64 // since when, Unix time
	nano   int32
	prefix netip.Prefix
	cells  string // with a tab behind each, which none has in it
}

func newBanTable(now time.Time, exact bool) *banTable {
	t := &banTable{now: now, exact: exact, columns: []column{
		{title: "who"}, {title: "cut off from", give: 1}, {title: "ends"}, {title: "since", give: 3},
		{title: "times", give: 6}, {title: "dropped", give: 4}, {title: "evidence", give: 5}, {title: "why", give: 2, narrows: true},
	}}
	for i := range t.columns {
		t.columns[i].place = i
		t.columns[i].fitTo(t.columns[i].title)
	}
	return t
}

func (t *banTable) add(b *view.Ban) {
	t.text = t.text[:0]
	for i, cell := range [...]string{
		view.Who(b.Prefix), cutOff(b), ends(b, t.now, t.exact), since(b, t.now, t.exact),
		strconv.Itoa(b.Times), dropped(b), evidence(b), view.Printable(b.Reason),
	} {
		t.columns[i].fitTo(cell)
		t.text = append(append(t.text, cell...), '\t')
	}
	t.counted = t.counted || b.Dropped != nil
	t.rows = append(t.rows, banRow{b.Since.Unix(), int32(b.Since.Nanosecond()), b.Prefix, string(t.text)})
}

// write writes the table, newest first.
func (t *banTable) write(w *bufio.Writer, width int) {
	if len(t.rows) == 0 {
		_, _ = w.WriteString("no bans\n")
		return
	}
	slices.SortFunc(t.rows, func(a, b banRow) int {
		if c := cmp.Or(cmp.Compare(b.second, a.second), cmp.Compare(b.nano, a.nano)); c != 0 {
			return c
		}
		return a.prefix.Compare(b.prefix)
	})
	_, _ = fmt.Fprintf(w, "%s %s\n", view.Grouped(uint64(len(t.rows))), view.Plural(len(t.rows), "ban"))
	columns := fit(slices.DeleteFunc(t.columns, func(c column) bool { return c.title == "dropped" && !t.counted }), width)
	writeTitles(w, columns)
	all, shown := make([]string, 0, len(t.columns)), make([]string, len(columns))
	for i := range t.rows {
		all = all[:0]
		for cell := range strings.SplitSeq(t.rows[i].cells, "\t") {
			all = append(all, cell)
		}
		for j := range columns {
			shown[j] = all[columns[j].place]
		}
		writeRow(w, columns, shown)
	}
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
		return "what " + view.Printable(strings.Join(b.Methods, ", ")) + " does"
	}
	what := view.Printable(b.Strength)
	switch b.Strength {
	case "limited":
		what = "ports without a service"
	case "soft":
		what = "new connections"
	case "full":
		what = "everything"
	}
	if b.Scope != "all" {
		what += ", " + strings.ToUpper(view.Printable(b.Scope)) + " only"
	}
	return what
}

// evidence is the class in words, and whether the address is in use.
func evidence(b *view.Ban) string {
	word := view.Printable(b.Evidence)
	switch b.Evidence {
	case "E0":
		return "by hand"
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
	return view.Grouped(*b.Dropped)
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
	return "in " + view.Span(b.Until.Sub(now))
}

func since(b *view.Ban, now time.Time, exact bool) string {
	if exact {
		return b.Since.In(now.Location()).Format(time.RFC3339)
	}
	return view.Span(now.Sub(b.Since)) + " ago"
}
