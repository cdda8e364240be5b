package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
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
	return cutShort(readBans(json.NewDecoder(body), take))
}

// readBans reads a view.BanList, of which the list alone is looked at.
func readBans(d *json.Decoder, take func(b *view.Ban)) error {
	if err := expect(d, json.Delim('{')); err != nil {
		return err
	}
	for d.More() {
		switch key, err := d.Token(); {
		case err != nil:
			return err
		case key != "bans":
			var other json.RawMessage
			if err := d.Decode(&other); err != nil {
				return err
			}
			continue
		}
		switch open, err := d.Token(); {
		case err != nil:
			return err
		case open == nil: // null
			continue
		case open != json.Delim('['):
			return fmt.Errorf("%v where a list should be", open)
		}
		for d.More() {
			var b view.Ban
			if err := d.Decode(&b); err != nil {
				return err
			}
			take(&b)
		}
		if err := expect(d, json.Delim(']')); err != nil {
			return err
		}
	}
	return expect(d, json.Delim('}')) // it was whole
}

// expect reads a token that has to be there.
func expect(d *json.Decoder, want json.Token) error {
	got, err := d.Token()
	if err == nil && got != want {
		err = fmt.Errorf("%v where %v should be", got, want)
	}
	return err
}

// writeBans writes the table of bans, newest first.
func writeBans(w *bufio.Writer, bans []view.Ban, now time.Time, width int, exact bool) {
	if len(bans) == 0 {
		_, _ = w.WriteString("no bans\n")
		return
	}
	slices.SortFunc(bans, func(a, b view.Ban) int {
		return cmp.Or(b.Since.Compare(a.Since), a.Prefix.Compare(b.Prefix))
	})
	_, _ = fmt.Fprintf(w, "%s %s\n", view.Grouped(uint64(len(bans))), view.Plural(len(bans), "ban"))

	columns := []column{
		{title: "who"}, {title: "cut off from", give: 1}, {title: "ends"}, {title: "since", give: 3},
		{title: "times", give: 6}, {title: "dropped", give: 4}, {title: "evidence", give: 5}, {title: "why", give: 2, narrows: true},
	}
	for i := range bans {
		b := &bans[i]
		add(columns, view.Who(b.Prefix), cutOff(b), ends(b, now, exact), since(b, now, exact),
			strconv.Itoa(b.Times), dropped(b), evidence(b), view.Printable(b.Reason))
	}
	columns = slices.DeleteFunc(columns, func(c column) bool {
		return c.title == "dropped" && !slices.ContainsFunc(bans, func(b view.Ban) bool { return b.Dropped != nil })
	})
	writeTable(w, columns, width)
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
