package tui

import (
	"context"
	"net/netip"
	"strings"
	"unicode"

	tea "charm.land/bubbletea/v2"

	"portsentry/internal/view"
)

// what is asked of the person.
type asked int

const (
	askFilter asked = iota
	askLength
	askBan
	askUnban
)

// prompt is a question to the person, on the last line.
type prompt struct {
	what   asked
	whom   netip.Prefix
	line   string // typed so far
	length string // of the ban; "": BAN_TIME
}

// maxTyped bounds a typed line, in characters.
const maxTyped = 60

// question is the prompt in words, without what is typed.
func (p *prompt) question() string {
	switch p.what {
	case askFilter:
		return "only addresses that begin with, or of the range: "
	case askLength:
		return "ban " + view.Who(p.whom) + " for (10m, 1h, 1d; nothing: BAN_TIME): "
	case askBan:
		length := "BAN_TIME"
		if p.length != "" {
			length = p.length
		}
		return "ban " + view.Who(p.whom) + " for " + length + "? y/n "
	}
	return "unban " + view.Who(p.whom) + "? y/n "
}

// typed adds to the line that is typed.
func (m *model) typed(text string) {
	if m.mode != modeTyping {
		return
	}
	text = strings.TrimFunc(text, unicode.IsSpace)
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || length(m.prompt.line)+length(text) > maxTyped {
		return
	}
	m.prompt.line += text
}

func (m *model) typing(name, text string) tea.Cmd {
	switch name {
	case "esc":
		m.mode = modeRows
	case "backspace", "ctrl+h":
		if line := []rune(m.prompt.line); len(line) > 0 {
			m.prompt.line = string(line[:len(line)-1])
		}
	case "ctrl+u":
		m.prompt.line = ""
	case "enter":
		m.entered()
	default:
		m.typed(text)
	}
	return nil
}

// entered takes the typed line.
func (m *model) entered() {
	m.mode = modeRows
	if m.prompt.what == askFilter {
		m.filter = newFilter(m.prompt.line)
		m.at[m.pane] = position{}
		return
	}
	if m.prompt.line != "" {
		if _, err := view.ParseLength(m.prompt.line); err != nil {
			m.notice, m.failed = view.Printable(err.Error()), true
			m.mode = modeTyping
			return
		}
	}
	m.prompt.what, m.prompt.length = askBan, m.prompt.line
	m.mode = modeConfirm
}

func (m *model) confirming(name string) tea.Cmd {
	m.mode = modeRows
	if name != "y" && name != "Y" {
		m.notice, m.failed = "nothing was done", false
		return nil
	}
	m.notice, m.failed = "asking portsentry ...", false
	ctx, c, p := m.ctx, m.client, m.prompt
	return func() tea.Msg {
		if p.what == askBan {
			return finished(c.Ban(ctx, p.whom, p.length))
		}
		return finished(c.Unban(ctx, p.whom))
	}
}

// done is the message that ends an order.
type done struct {
	said   string
	failed bool
}

func finished(said string, err error) done {
	if err != nil {
		return done{view.Printable(err.Error()), true}
	}
	return done{view.Printable(strings.TrimSpace(said)), false}
}

// explained is the message with what `why` says of an address.
type explained struct {
	address netip.Addr
	width   int
	text    string
	err     error
}

// explain asks why, about the address of p or the first of its range.
func (m *model) explain(p netip.Prefix) tea.Cmd {
	return why(m.ctx, m.client, p.Addr(), m.width)
}

func why(ctx context.Context, c Client, a netip.Addr, width int) tea.Cmd {
	return func() tea.Msg {
		text, err := c.Why(ctx, a, width)
		return explained{a, width, text, err}
	}
}

// explained shows what `why` says.
func (m *model) explained(e *explained) {
	if e.err != nil {
		m.notice, m.failed = view.Printable(e.err.Error()), true
		return
	}
	top := 0
	if m.mode == modeText && m.text.about == e.address {
		top = m.text.top
	}
	var lines []string
	for line := range strings.Lines(e.text) {
		lines = append(lines, view.Printable(strings.TrimRight(line, "\n")))
	}
	m.mode, m.text = modeText, page{about: e.address, lines: lines, top: top, width: e.width}
}

// fold has the text made again that does not fit the terminal any more.
func (m *model) fold() tea.Cmd {
	switch {
	case m.mode != modeText || m.text.width == m.width:
		return nil
	case m.text.help:
		m.text.lines = helpLines(m.width)
		return nil
	}
	m.dirty = true
	m.draw()
	return why(m.ctx, m.client, m.text.about, m.width)
}
