package tui

import (
	"context"
	"time"

	tea "charm.land/bubbletea/v2"

	"portsentry/internal/view"
)

// question is one of those that the daemon is asked again and again.
type question int

const (
	askStatus question = iota
	askReport
	askSources
	askBans
	questions
)

// Of all questions.
const (
	// share is how many times as long as an answer took the daemon is left alone.
	share   = 20
	hour    = time.Hour // what the report is about
	maxRows = 2048      // sources, and bans, that are kept
	// overlap is how far back changes of sources are asked for again: what was seen
	// reaches the daemon's database a little later.
	overlap = 5 * time.Second
	// whole is how often all sources are asked for, and not those that have changed.
	whole = time.Minute
)

// every is how often a question is asked, at most.
func (m *model) every(q question) time.Duration {
	switch {
	case q == askStatus:
		return time.Second
	case q == askSources && m.pane == paneSources, q == askBans:
		return 2 * time.Second
	}
	return 10 * time.Second
}

// asking is the state of one question.
type asking struct {
	waits bool      // for the answer
	ended time.Time // when the last one came; zero: it is asked at once
	took  time.Duration
	wrong string // why there was none
}

// answer is the message that ends one. Of what follows one is set.
type answer struct {
	of    question
	began time.Time
	ended time.Time
	since time.Time // of askSources
	err   error

	status  view.Status
	report  view.Report
	sources view.SourceList
	bans    []view.Ban
	more    bool
}

// ask is the command for q.
func ask(ctx context.Context, c Client, q question, since time.Time) tea.Cmd {
	return func() tea.Msg {
		a := answer{of: q, began: time.Now(), since: since}
		switch q {
		case askStatus:
			a.status, a.err = c.Status(ctx)
		case askReport:
			a.report, a.err = c.Report(ctx, a.began.Add(-hour))
		case askSources:
			a.sources, a.err = c.Sources(ctx, since, maxRows)
		case askBans:
			a.bans, a.more, a.err = c.Bans(ctx, maxRows)
		}
		a.ended = time.Now()
		return a
	}
}

// ask gives the commands for what is to be asked now. While there is no answer to the
// first question, no other is asked.
func (m *model) ask() tea.Cmd {
	var all []tea.Cmd
	for q := range questions {
		a := &m.asking[q]
		switch {
		case a.waits, m.now.Before(a.ended.Add(max(m.every(q)-a.took, share*a.took))), m.paused, m.gone != "" && q != askStatus, q == askBans && m.pane != paneBans:
			continue
		}
		a.waits = true
		since := m.sourcesSince
		if m.now.Sub(m.sourcesWhole) >= whole {
			since = time.Time{}
		}
		all = append(all, ask(m.ctx, m.client, q, since))
	}
	return tea.Batch(all...)
}

// answered takes in the answer to a question.
func (m *model) answered(a *answer) {
	is := &m.asking[a.of]
	is.waits, is.ended, is.took, is.wrong = false, a.ended, a.ended.Sub(a.began), ""
	if a.err != nil {
		is.wrong = view.Printable(a.err.Error())
	}
	if m.paused {
		return
	}
	m.dirty = true
	switch {
	case a.of == askStatus && a.err != nil:
		m.gone = is.wrong
	case a.of == askStatus:
		if m.gone != "" {
			m.askAll()
		}
		m.gone = ""
		m.statusAt = a.ended
		m.tookStatus(&a.status)
	case a.err != nil:
	case a.of == askReport:
		m.tookReport(&a.report)
	case a.of == askSources:
		m.tookSources(&a.sources, a.since.IsZero(), a.ended)
		m.sourcesSince = a.began.Add(-overlap)
		if a.since.IsZero() {
			m.sourcesWhole = a.began
		}
	case a.of == askBans:
		m.bans, m.moreBans = a.bans, a.more
	}
}

// askAll has everything asked at once.
func (m *model) askAll() {
	for q := range m.asking {
		m.asking[q].ended = time.Time{}
	}
}
