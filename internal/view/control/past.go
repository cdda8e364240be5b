package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"portsentry/internal/view"
)

// Past says what has happened.
type Past interface {
	Events(ctx context.Context, f view.PastFilter) (view.EventList, error)
	// Follow hands send what was asked for of the past, oldest first, if f has a Since
	// or a Limit, and from then on what happens, until ctx ends, the daemon stops (both
	// no error) or send fails. It begins with a call without events, as soon as
	// nothing is missed any more.
	Follow(ctx context.Context, f view.PastFilter, send func([]view.Event) error) error
	Sources(ctx context.Context, f view.PastFilter) (view.SourceList, error)
	Why(ctx context.Context, a netip.Addr) (view.Why, error)
	Report(ctx context.Context, since, until time.Time) (view.Report, error)
}

// followPatience is how long a follower may leave what he is sent unread.
const followPatience = 10 * time.Second

// past are the routes of Past.
func (s *Server) past(b Past) []route {
	if b == nil {
		return nil
	}
	return []route{
		{method: http.MethodGet, path: view.PathEvents, follows: true, answer: func(w http.ResponseWriter, r *asked) {
			f, err := pastFilter(r, "since", "until", "source", "kind", "limit", "follow")
			switch {
			case err != nil:
				s.failed(w, err)
			case r.URL.Query().Get("follow") == "1":
				s.follow(w, r, b, f)
			default:
				ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
				defer cancel()
				list, err := b.Events(ctx, f)
				s.give(w, list, err)
			}
		}},
		{method: http.MethodGet, path: view.PathSources, answer: func(w http.ResponseWriter, r *asked) {
			f, err := pastFilter(r, "since", "until", "source", "limit")
			if err != nil {
				s.failed(w, err)
				return
			}
			list, err := b.Sources(r.Context(), f)
			s.give(w, list, err)
		}},
		{method: http.MethodGet, path: view.PathWhy, below: true, answer: func(w http.ResponseWriter, r *asked) {
			a, err := netip.ParseAddr(r.what)
			if err != nil {
				s.failed(w, view.Refuse(http.StatusBadRequest, fmt.Sprintf("%.60q is no address", r.what), "give one like 203.0.113.9 or 2001:db8::9"))
				return
			}
			why, err := b.Why(r.Context(), a.WithZone("").Unmap())
			s.give(w, why, err)
		}},
		{method: http.MethodGet, path: view.PathReport, answer: func(w http.ResponseWriter, r *asked) {
			f, err := pastFilter(r, "since", "until")
			if err != nil {
				s.failed(w, err)
				return
			}
			report, err := b.Report(r.Context(), f.Since, f.Until)
			s.give(w, report, err)
		}},
	}
}

// give answers with v, unless there is an error.
func (s *Server) give(w http.ResponseWriter, v any, err error) {
	if err != nil {
		s.failed(w, err)
		return
	}
	answer(w, v)
}

// follow sends one event a line as they happen. Who does not read them is cut off:
// the connection is one of few.
func (s *Server) follow(w http.ResponseWriter, r *asked, b Past, f view.PastFilter) {
	begun := false
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{}) // it was for the request
	lines := json.NewEncoder(w)
	err := b.Follow(r.Context(), f, func(events []view.Event) error {
		begun = true
		if err := c.SetWriteDeadline(time.Now().Add(followPatience)); err != nil {
			return err
		}
		for i := range events {
			if err := lines.Encode(&events[i]); err != nil {
				return err
			}
		}
		return c.Flush()
	})
	if err != nil && !begun {
		s.failed(w, err)
	}
}

// pastFilter reads a query.
func pastFilter(r *asked, may ...string) (f view.PastFilter, err error) {
	q, err := query(r, may...)
	if err != nil {
		return f, err
	}
	for key, values := range q {
		v := values[0]
		switch key {
		case "since":
			f.Since, err = time.Parse(time.RFC3339, v)
		case "until":
			f.Until, err = time.Parse(time.RFC3339, v)
		case "source":
			f.Source, err = view.ParseTarget(v)
		case "kind":
			f.Kind, err = view.ParseEventKind(v)
		case "limit":
			if f.Limit, err = strconv.Atoi(v); err == nil && f.Limit < 0 {
				err = strconv.ErrRange
			}
		}
		if err != nil {
			return f, view.Refuse(http.StatusBadRequest, fmt.Sprintf("%s=%.60q: %v", key, v, err), "times are those of RFC 3339, limit is a number")
		}
	}
	return f, nil
}
