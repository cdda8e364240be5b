package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"portsentry/internal/view"
)

func remote(t *testing.T, handle http.HandlerFunc) *Remote {
	t.Helper()
	socket := serveHTTP(t, handle)
	return NewRemote(Options{Socket: &socket, Now: func() time.Time { return now }})
}

// Of however many bans there are the latest are kept, and of a list that breaks off none.
func TestRemoteBans(t *testing.T) {
	for _, c := range []struct {
		bans, cut, want int
		more            bool
	}{{0, 0, 0, false}, {3, 0, 3, false}, {10, 0, 10, false}, {5000, 0, 10, true}, {5000, 1, 0, false}} {
		r := remote(t, func(w http.ResponseWriter, _ *http.Request) {
			var b strings.Builder
			b.WriteString(`{"bans":[`)
			for i := range c.bans {
				if i > 0 {
					b.WriteByte(',')
				}
				ban := view.Ban{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Since: now.Add(time.Duration(i*7919%5003) * time.Second)}
				_ = json.NewEncoder(&b).Encode(ban)
			}
			b.WriteString("]}\n")
			_, _ = io.WriteString(w, b.String()[:b.Len()-3*c.cut])
		})
		bans, more, err := r.Bans(t.Context(), 10)
		if len(bans) != c.want || more != c.more || (err != nil) != (c.cut > 0) {
			t.Errorf("%d bans, cut %d: %d, more %v, %v", c.bans, c.cut, len(bans), more, err)
		}
		for i := range bans {
			if i > 0 && bans[i].Since.After(bans[i-1].Since) || c.more && bans[i].Since.Before(now.Add(4900*time.Second)) {
				t.Errorf("of %d bans number %d is of %v", c.bans, i, bans[i].Since)
			}
		}
	}
}

func TestRemoteFollow(t *testing.T) {
	r := remote(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.RequestURI(); got != "/v1/events?follow=1&limit=5" {
			t.Errorf("asked for %s", got)
		}
		for i := range 3 {
			_ = json.NewEncoder(w).Encode(view.Event{Type: view.TypeBan, Source: fmt.Sprint("192.0.2.", i)})
		}
	})
	var got []string
	err := r.Follow(t.Context(), 5, func(e view.Event) { got = append(got, e.Source) })
	if strings.Join(got, " ") != "192.0.2.0 192.0.2.1 192.0.2.2" || err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("%q, %v", got, err)
	}
}

// Orders ask for what the commands of that name ask for, and say the same.
func TestRemoteOrders(t *testing.T) {
	asked, answer, status := "", "", http.StatusOK
	r := remote(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.Path + " for=" + r.URL.Query().Get("for")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	})
	one := netip.MustParsePrefix("203.0.113.9/32")
	answer = `{"bans":[{"prefix":"203.0.113.9/32","scope":"all","strength":"full","methods":["nftables"]}],"text":"203.0.113.9 is banned for 1h"}`
	if said, err := r.Ban(t.Context(), one, "1h"); err != nil || asked != "POST /v1/bans/203.0.113.9 for=1h" || said != "203.0.113.9 is banned for 1h, cut off from everything (nftables)\n" {
		t.Errorf("%s: %q, %v", asked, said, err)
	}
	answer = `{"lifted":[]}`
	if _, err := r.Unban(t.Context(), one); asked != "DELETE /v1/bans/203.0.113.9 for=" || err == nil || err.Error() != "203.0.113.9 is not banned" {
		t.Errorf("%s: %v", asked, err)
	}
	answer, status = `{"error":"203.0.113.9 is your login","hint":"--force, as root"}`, http.StatusConflict
	if _, err := r.Ban(t.Context(), one, ""); err == nil || err.Error() != "203.0.113.9 is your login; --force, as root" {
		t.Error(err)
	}
	answer, status = `{"address":"203.0.113.9","verdict":"unknown"}`, http.StatusOK
	if said, err := r.Why(t.Context(), one.Addr(), 40); err != nil || !strings.HasPrefix(said, "203.0.113.9 is unknown: nothing was seen\n") {
		t.Errorf("%q, %v", said, err)
	}
}
