package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"portsentry/internal/view"
)

// Changes makes changes, for whoever has been found to be allowed to: what is
// root's alone is refused here.
type Changes interface {
	// Join watches one more protocol, without a pause in watching the other.
	Join(ctx context.Context, who view.Caller, j view.Join) (view.Modes, error)
	Ban(ctx context.Context, who view.Caller, o view.Order) (view.Changed, error)
	// Unban lifts bans and undoes what was done to their hosts. None is no error here.
	Unban(ctx context.Context, who view.Caller, l view.Lifting) (view.Changed, error)
	// Reload reads the configuration again; within is as in view.Order.
	Reload(ctx context.Context, who view.Caller, within time.Duration) (view.Changed, error)
	Pending(ctx context.Context) ([]view.Pending, error)
	// Confirm lets what waits under this number stand.
	Confirm(ctx context.Context, who view.Caller, number uint64) (view.Pending, error)
}

// memberRate is how many changes all members of the group together make a second,
// and at once.
const memberRate = 10

// changes are the routes of Changes.
func (s *Server) changes(b Changes) []route {
	if b == nil {
		return nil
	}
	h := &changing{s, b, bucket{left: memberRate}}
	return []route{
		{method: http.MethodPost, path: view.PathBans, below: true, answer: h.ban},
		{method: http.MethodDelete, path: view.PathBans, below: true, answer: h.unban},
		{method: http.MethodPut, path: view.PathModes, root: true, answer: h.join},
		{method: http.MethodPost, path: view.PathReload, root: true, answer: h.reload},
		{method: http.MethodGet, path: view.PathPending, answer: h.pending},
		{method: http.MethodPost, path: view.PathPending, below: true, answer: h.confirm},
	}
}

// changing answers the routes of Changes.
type changing struct {
	*Server
	does    Changes
	members bucket
}

// answered writes what was done, or why not.
func answered[T any](h *changing, w http.ResponseWriter, v T, err error) {
	if err != nil {
		h.failed(w, err)
		return
	}
	answer(w, v)
}

func (h *changing) join(w http.ResponseWriter, r *asked) {
	q := r.URL.Query()
	modes, err := h.does.Join(r.Context(), r.who, view.Join{Config: q.Get("config"), TCP: q.Get("tcp"), UDP: q.Get("udp")})
	answered(h, w, modes, err)
}

func (h *changing) ban(w http.ResponseWriter, r *asked) {
	var o view.Order
	q, err := query(r, "for", "reason", "force", "from", view.QueryWithin)
	if err == nil {
		o, err = order(r.what, q)
	}
	if err == nil {
		err = h.may(r.who, o.Prefix, o.Force)
	}
	if err != nil {
		h.failed(w, err)
		return
	}
	done, err := h.does.Ban(r.Context(), r.who, o)
	answered(h, w, done, err)
}

func order(what string, q url.Values) (o view.Order, err error) {
	if o.Prefix, err = view.ParseTarget(what); err != nil {
		return o, err
	}
	if text := q.Get("for"); text != "" {
		if o.Length, err = view.ParseLength(text); err != nil {
			return o, err
		}
	}
	if text := q.Get("force"); text != "" {
		if o.Force, err = strconv.ParseBool(text); err != nil {
			return o, view.Refuse(http.StatusBadRequest, fmt.Sprintf("force is true or false, not %.20q", text), "")
		}
	}
	if o.Reason, err = view.CheckReason(q.Get("reason")); err != nil {
		return o, err
	}
	if o.From, err = view.ParseFrom(q.Get("from")); err != nil {
		return o, err
	}
	o.Within, err = within(q)
	return o, err
}

func (h *changing) unban(w http.ResponseWriter, r *asked) {
	var l view.Lifting
	q, err := query(r, view.QueryWithin)
	if err == nil && r.what != view.All {
		l.Prefix, err = view.ParseTarget(r.what)
	}
	if err == nil {
		l.Within, err = within(q)
	}
	if err == nil {
		err = h.may(r.who, l.Prefix, false)
	}
	if err != nil {
		h.failed(w, err)
		return
	}
	done, err := h.does.Unban(r.Context(), r.who, l)
	if err != nil {
		h.failed(w, err)
		return
	}
	writeUnbanned(w, &view.Unbanned{Address: l.Prefix.Addr(), Pending: done.Pending, Confirm: done.Confirm, Text: done.Text}, done.Lifted)
}

// writeUnbanned writes u with what was lifted, one ban after the other as writeBans does.
func writeUnbanned(w http.ResponseWriter, u *view.Unbanned, lifted []view.Ban) {
	all, err := json.Marshal(u)
	before, after, ok := bytes.Cut(all, []byte(`"lifted":null`))
	if err != nil || !ok {
		panic(http.ErrAbortHandler)
	}
	b := bufio.NewWriterSize(w, 64<<10)
	_, _ = b.Write(before)
	_, _ = b.WriteString(`"lifted":[`)
	for i := range lifted {
		one, err := json.Marshal(&lifted[i])
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if i > 0 {
			_ = b.WriteByte(',')
		}
		_, _ = b.Write(one)
	}
	_ = b.WriteByte(']')
	_, _ = b.Write(after)
	_ = b.WriteByte('\n')
	_ = b.Flush()
}

func (h *changing) reload(w http.ResponseWriter, r *asked) {
	q, err := query(r, view.QueryWithin)
	var length time.Duration
	if err == nil {
		length, err = within(q)
	}
	if err != nil {
		h.failed(w, err)
		return
	}
	done, err := h.does.Reload(r.Context(), r.who, length)
	answered(h, w, done, err)
}

func (h *changing) pending(w http.ResponseWriter, r *asked) {
	list, err := h.does.Pending(r.Context())
	if list == nil {
		list = []view.Pending{}
	}
	answered(h, w, view.PendingList{Pending: list}, err)
}

func (h *changing) confirm(w http.ResponseWriter, r *asked) {
	number, err := strconv.ParseUint(r.what, 10, 64)
	if err != nil {
		h.failed(w, view.Refuse(http.StatusBadRequest, fmt.Sprintf("%.30q is no number of a change", r.what), "portsentry pending lists them"))
		return
	}
	done, err := h.does.Confirm(r.Context(), r.who, number)
	answered(h, w, done, err)
}

// may says why somebody may not ban or unban p, the invalid prefix being everybody.
func (h *changing) may(who view.Caller, p netip.Prefix, force bool) error {
	switch {
	case who.Root:
		return nil
	case force:
		return view.Refuse(http.StatusForbidden, "--force is root's alone", "try sudo")
	case !p.IsValid():
		return view.Refuse(http.StatusForbidden, "only root lifts all bans at once", "try sudo, or unban one address after the other")
	case !view.Single(p):
		return view.Refuse(http.StatusForbidden, p.String()+" is a range, and ranges are root's alone", "try sudo; group "+h.group+" bans and unbans single addresses and IPv6 /64 networks")
	case !h.members.take(time.Now()):
		return view.Refuse(http.StatusTooManyRequests, fmt.Sprintf("more than %d changes a second by members of group %s", memberRate, h.group), "wait a second; root does not have to")
	}
	return nil
}

// query are the parameters of r, which has no others than names.
func query(r *asked, names ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, view.Refuse(http.StatusBadRequest, "the query of the request cannot be read", "")
	}
	for name, values := range q {
		known := false
		for _, n := range names {
			known = known || n == name
		}
		if !known || len(values) > 1 {
			return nil, view.Refuse(http.StatusBadRequest, fmt.Sprintf("%.30q is not asked for here, or twice", name), "")
		}
	}
	return q, nil
}

// within is how long a change waits to be confirmed; 0: it does not.
func within(q url.Values) (time.Duration, error) {
	text := q.Get(view.QueryWithin)
	if text == "" {
		return 0, nil
	}
	return view.ParseWithin(text)
}

// bucket lets memberRate of something happen a second.
type bucket struct {
	mu   sync.Mutex
	left float64
	at   time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = min(memberRate, b.left+now.Sub(b.at).Seconds()*memberRate)
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
