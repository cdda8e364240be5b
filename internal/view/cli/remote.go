package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"portsentry/internal/host"
	"portsentry/internal/view"
)

// Remote asks a daemon for what is shown while it changes: `portsentry top`.
type Remote struct{ o Options }

// NewRemote is for the daemon at o.Socket.
func NewRemote(o Options) *Remote {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Remote{o}
}

// Status is how things are.
func (r *Remote) Status(ctx context.Context) (st view.Status, err error) {
	return st, r.get(ctx, view.PathStatus, nil, &st)
}

// Report is what happened since then.
func (r *Remote) Report(ctx context.Context, since time.Time) (rep view.Report, err error) {
	return rep, r.get(ctx, view.PathReport, url.Values{"since": {since.Format(time.RFC3339)}}, &rep)
}

// Sources are those seen since then, the latest first, at most limit.
func (r *Remote) Sources(ctx context.Context, since time.Time, limit int) (list view.SourceList, err error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if !since.IsZero() {
		q.Set("since", since.Format(time.RFC3339))
	}
	return list, r.get(ctx, view.PathSources, q, &list)
}

// Bans are the latest, at most limit, and whether there are more. The answer may have
// half a million: no more than a few are held at once.
func (r *Remote) Bans(ctx context.Context, limit int) (latest []view.Ban, more bool, err error) {
	keep := func() {
		slices.SortFunc(latest, func(a, b view.Ban) int { return b.Since.Compare(a.Since) })
		if len(latest) > limit {
			latest, more = latest[:limit], true
		}
	}
	err = r.o.eachBan(ctx, func(b *view.Ban) {
		if more && !b.Since.After(latest[limit-1].Since) {
			return // that many are later
		}
		if latest = append(latest, *b); len(latest) >= 2*limit {
			keep()
		}
	})
	if err != nil {
		return nil, false, err
	}
	keep()
	return latest, more, nil
}

// Follow calls take with what was told last, at most before events, and then with what
// happens, until ctx ends or the daemon goes.
func (r *Remote) Follow(ctx context.Context, before int, take func(view.Event)) error {
	q := url.Values{"follow": {"1"}}
	if before > 0 {
		q.Set("limit", strconv.Itoa(before))
	}
	body, err := r.o.ask(ctx, http.MethodGet, view.PathEvents+"?"+q.Encode(), false, io.Discard)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	lines := json.NewDecoder(body)
	for {
		var e view.Event
		switch err := lines.Decode(&e); {
		case err == nil:
			take(e)
		case errors.Is(err, context.Canceled):
			return err
		default:
			return goneAway()
		}
	}
}

// Why is what `portsentry why` says, in lines of at most width columns.
func (r *Remote) Why(ctx context.Context, a netip.Addr, width int) (string, error) {
	var y view.Why
	if err := r.get(ctx, view.PathWhy+"/"+url.PathEscape(a.String()), nil, &y); err != nil {
		return "", err
	}
	return written(func(w *bufio.Writer) {
		if y.Verdict == view.VerdictUnknown {
			wrapped(w, "", 0, verdict(&y, r.o.Now(), false), width)
			return
		}
		writeWhy(w, &y, r.o.Now(), width, false, false)
	})
}

// Ban bans p, for BAN_TIME where length is empty, and says what was done.
func (r *Remote) Ban(ctx context.Context, p netip.Prefix, length string) (string, error) {
	q := url.Values{"from": {view.ShowFrom(host.LoginOf(os.Getpid()))}}
	if length != "" {
		q.Set("for", length)
	}
	var did view.Changed
	if err := r.do(ctx, http.MethodPost, banPath(p), q, &did); err != nil {
		return "", err
	}
	return written(func(w *bufio.Writer) { writeBanned(w, &did, r.o.Now()) })
}

// Unban lifts every ban in p and those it lies in, and says what was done.
func (r *Remote) Unban(ctx context.Context, p netip.Prefix) (string, error) {
	var did view.Unbanned
	if err := r.do(ctx, http.MethodDelete, banPath(p), nil, &did); err != nil {
		return "", err
	}
	if len(did.Lifted) == 0 {
		return "", notBanned(p)
	}
	return written(func(w *bufio.Writer) { writeLifted(w, p, &did, r.o.Now()) })
}

func (r *Remote) get(ctx context.Context, path string, q url.Values, v any) error {
	return r.do(ctx, http.MethodGet, path, q, v)
}

func (r *Remote) do(ctx context.Context, method, path string, q url.Values, v any) error {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	body, err := r.o.ask(ctx, method, path, false, io.Discard)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return decode(body, v)
}

// written is what is written as a text.
func written(write func(w *bufio.Writer)) (string, error) {
	var b bytes.Buffer
	err := buffered(&b, write)
	return b.String(), err
}
