package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/view"
)

// past is a Past that says what it was asked for.
type past struct {
	asked chan view.PastFilter
	tell  chan []view.Event
}

func (p *past) Events(_ context.Context, f view.PastFilter) (view.EventList, error) {
	p.asked <- f
	return view.EventList{Events: []view.Event{{Text: "once"}}}, nil
}

func (p *past) Follow(ctx context.Context, f view.PastFilter, send func([]view.Event) error) error {
	if f.Kind == "change" {
		return view.Refuse(http.StatusServiceUnavailable, "8 already follow what happens", "end one of them first")
	}
	p.asked <- f
	if err := send(nil); err != nil {
		return err
	}
	for {
		select {
		case events := <-p.tell:
			if err := send(events); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *past) Sources(_ context.Context, f view.PastFilter) (view.SourceList, error) {
	p.asked <- f
	return view.SourceList{Sources: []view.Source{}}, nil
}

func (p *past) Why(_ context.Context, a netip.Addr) (view.Why, error) {
	return view.Why{Address: a, Verdict: view.VerdictUnknown}, nil
}

func (p *past) Report(_ context.Context, since, until time.Time) (view.Report, error) {
	p.asked <- view.PastFilter{Since: since, Until: until}
	return view.Report{}, nil
}

// startPast runs a server with a Past until stop is called, or the test ends.
func startPast(t *testing.T) (p *past, c *http.Client, stop func() error) {
	t.Helper()
	p = &past{asked: make(chan view.PastFilter, 1), tell: make(chan []view.Event)}
	path := filepath.Join(t.TempDir(), "s")
	s, err := Listen(path, "no-such-group", Backend{Past: p}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx); close(done) }()
	stop = func() error {
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return p, client(t, path), stop
}

func TestPastQuestions(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: nobody else may ask here")
	}
	p, c, _ := startPast(t)
	at := time.Date(2026, 11, 21, 9, 30, 0, 0, time.UTC)
	for url, want := range map[string]view.PastFilter{
		"/v1/events": {},
		"/v1/events?since=2026-11-21T09:30:00Z&source=203.0.113.0/24&kind=syn&limit=7": {Since: at, Source: netip.MustParsePrefix("203.0.113.0/24"), Kind: "syn", Limit: 7},
		"/v1/sources?until=2026-11-21T09:30:00Z&source=203.0.113.9":                    {Until: at, Source: netip.MustParsePrefix("203.0.113.9/32")},
		"/v1/report?since=2026-11-21T09:30:00Z":                                        {Since: at},
	} {
		if status, body := ask(t, c, http.MethodGet, url); status != http.StatusOK {
			t.Errorf("%s: %d %s", url, status, body)
			continue
		}
		if got := <-p.asked; got != want {
			t.Errorf("%s: asked for %+v, want %+v", url, got, want)
		}
	}
	for url, want := range map[string]string{
		"/v1/events?since=yesterday":      `{"error":"since=\"yesterday\": parsing time`,
		"/v1/events?limit=-1":             `{"error":"limit=\"-1\": value out of range"`,
		"/v1/events?kind=sny":             `{"error":"kind=\"sny\": \"sny\" is none of`,
		"/v1/events?source=here":          `{"error":"source=\"here\"`,
		"/v1/events?colour=red":           `{"error":"\"colour\" is not asked for here, or twice"}`,
		"/v1/sources?follow=1":            `{"error":"\"follow\" is not asked for here, or twice"}`,
		"/v1/report?limit=1":              `{"error":"\"limit\" is not asked for here, or twice"}`,
		"/v1/why/here":                    `{"error":"\"here\" is no address","hint":"give one like`,
		"/v1/why/203.0.113.0%2F24":        `{"error":"\"203.0.113.0/24\" is no address"`,
		"/v1/events?limit=1&limit=2":      `{"error":"\"limit\" is not asked for here, or twice"}`,
		"/v1/events?since=2026-11-21":     `{"error":"since=\"2026-11-21\"`,
		"/v1/events?follow=1&kind=change": `{"error":"8 already follow what happens","hint":"end one of them first"}`,
	} {
		status, body := ask(t, c, http.MethodGet, url)
		if status != http.StatusBadRequest && status != http.StatusServiceUnavailable || !strings.HasPrefix(body, want) {
			t.Errorf("%s: %d %s, want %s", url, status, body, want)
		}
	}
	if _, body := ask(t, c, http.MethodGet, "/v1/why/::ffff:203.0.113.9"); !strings.HasPrefix(body, `{"address":"203.0.113.9"`) {
		t.Error(body)
	}
}

// Who follows is sent a line at a time, and the end of the server ends it.
func TestFollowing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: nobody else may ask here")
	}
	p, c, stop := startPast(t)
	resp, err := c.Get("http://portsentry/v1/events?follow=1&kind=syn")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := <-p.asked; got.Kind != "syn" {
		t.Errorf("asked for %+v", got)
	}
	lines := bufio.NewReader(resp.Body)
	for _, text := range []string{"one", "two"} {
		p.tell <- []view.Event{{Text: text}}
		line, err := lines.ReadBytes('\n')
		var e view.Event
		if err = errors.Join(err, json.Unmarshal(line, &e)); err != nil || e.Text != text {
			t.Fatalf("%q: %v", line, err)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("the server does not end while somebody follows: %v", err)
	}
	if line, err := lines.ReadBytes('\n'); err == nil {
		t.Errorf("%q after the end", line)
	}
}

// Every path of the table is in docs/openapi.json, and no other.
func TestRoutesAreDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct{}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	var documented, answered []string
	for path, methods := range doc.Paths {
		path, _, below := strings.Cut(path, "/{")
		for m := range methods {
			word := strings.ToUpper(m) + " " + path
			if below {
				word += "/..."
			}
			documented = append(documented, word)
		}
	}
	b := newBackend()
	s := new(Server)
	for _, r := range s.table(&Backend{State: b, Changes: b, Past: new(past), Health: unwell{}}) {
		word := r.method + " " + r.path
		if r.below {
			word += "/..."
		}
		answered = append(answered, word)
	}
	slices.Sort(documented)
	slices.Sort(answered)
	if !slices.Equal(documented, answered) {
		t.Errorf("docs/openapi.json has\n%s\nand answered are\n%s", strings.Join(documented, "\n"), strings.Join(answered, "\n"))
	}
}

type unwell struct{}

func (unwell) Health(context.Context) (view.Health, error) { return view.Health{}, nil }
