package tui

import (
	"context"
	"net/netip"
	"time"

	tea "charm.land/bubbletea/v2"

	"portsentry/internal/view"
)

// The panes, in the order of their keys.
type pane int

const (
	paneEvents pane = iota
	paneSources
	panePorts
	paneBans
	panes
)

var paneNames = [panes]string{"events", "sources", "ports", "bans"}

// mode is what keys are for.
type mode int

const (
	modeRows    mode = iota // to go through the rows of a pane
	modeText                // through a text: why, or help
	modeTyping              // a line is typed: a filter, or how long a ban is to last
	modeConfirm             // y or n
)

// model is all there is to see, and where one looks. It changes in Update alone and
// asks nobody: what does is a command.
type model struct {
	ctx    context.Context
	client Client
	beat   func() tea.Msg

	colour, blocks bool // whether the terminal has colours, and more characters than ASCII
	width, height  int
	now, began     time.Time
	dirty          bool   // something has changed since screen was made
	screen         string // what View gives

	// What the daemon said.
	asking       [questions]asking
	gone         string // why it does not answer any more; "": it does
	broken       string // why no events come
	status       view.Status
	statusAt     time.Time
	probes       meter // per second
	dropped      meter // packets, by bans
	report       *view.Report
	sources      map[netip.Addr]*source
	moreSources  bool
	sourcesAt    time.Time // of the last answer
	sourcesSince time.Time // where the next question goes on from
	sourcesWhole time.Time // when all were asked for
	bans         []view.Ban
	moreBans     bool
	events       []numbered // oldest first
	lost         uint64     // events that passed unread
	ports        map[port]*tally

	// Where one looks.
	pane   pane
	order  order
	filter filter
	at     [panes]position
	paused bool
	held   beat // what happened since
	mode   mode
	text   page   // of modeText
	prompt prompt // of modeTyping and modeConfirm
	notice string // what came of the last order
	failed bool   // and it did not go well
}

func newModel(ctx context.Context, c Client, next func() tea.Msg, now time.Time) *model {
	return &model{
		ctx: ctx, client: c, beat: next, now: now, began: now, dirty: true,
		sources: make(map[netip.Addr]*source), ports: make(map[port]*tally),
	}
}

// Init is for tea.Model.
func (m *model) Init() tea.Cmd { return tea.Batch(m.ask(), m.beat) }

// Update is for tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case beat:
		m.tick(&msg)
		return m, tea.Batch(m.ask(), m.beat)
	case answer:
		m.answered(&msg) // shown with the next beat
		return m, nil
	case done:
		m.notice, m.failed = msg.said, msg.failed
		m.askAll()
	case explained:
		m.explained(&msg)
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		if cmd := m.fold(); cmd != nil {
			return m, cmd
		}
	case tea.KeyPressMsg:
		m.dirty = true
		cmd := m.key(msg.String(), msg.Text)
		m.draw()
		return m, cmd
	case tea.PasteMsg:
		m.typed(msg.Content)
	default:
		return m, nil
	}
	m.dirty = true
	m.draw()
	return m, nil
}

// View is for tea.Model.
func (m *model) View() tea.View {
	return tea.View{Content: m.screen, AltScreen: true}
}

// tick takes in what has happened, and makes the picture if there is anything new in it.
func (m *model) tick(b *beat) {
	second := b.at.Unix() != m.now.Unix()
	if m.paused {
		m.held.at, m.held.broken = b.at, b.broken
		m.held.lost += b.lost
		m.held.events = append(m.held.events, b.events...)
		m.held.events = m.held.events[max(0, len(m.held.events)-maxEvents):]
		m.draw()
		return
	}
	if len(b.events) > 0 || b.lost > 0 || b.broken != m.broken || second {
		m.dirty = true
	}
	m.now, m.broken = b.at, b.broken
	m.lost += b.lost
	m.happened(b.events)
	m.draw()
}

// pause stops the picture, or goes on.
func (m *model) pause() {
	m.paused = !m.paused
	if m.paused {
		return
	}
	b := m.held
	m.held = beat{}
	if b.at.IsZero() { // no beat was held
		return
	}
	m.askAll()
	m.tick(&b)
}
