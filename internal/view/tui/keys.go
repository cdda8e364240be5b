package tui

import (
	"net/netip"

	tea "charm.land/bubbletea/v2"
)

// position is where one is in a pane: on the row with this key. At the top, whatever
// comes there.
type position struct {
	key   string // "": the first row
	index int    // where it was
	top   int    // the first row that is shown
}

// key does what a key is for. text is what it types.
func (m *model) key(name, text string) tea.Cmd {
	if name == "ctrl+c" {
		return tea.Quit
	}
	m.notice = ""
	switch m.mode {
	case modeTyping:
		return m.typing(name, text)
	case modeConfirm:
		return m.confirming(name)
	case modeText:
		return m.reading(name)
	}
	return m.going(name)
}

// going is for keys in the rows of a pane.
func (m *model) going(name string) tea.Cmd {
	switch name {
	case "q":
		return tea.Quit
	case "1", "2", "3", "4":
		return m.show(pane(name[0] - '1'))
	case "tab", "right", "l":
		return m.show((m.pane + 1) % panes)
	case "shift+tab", "left", "h":
		return m.show((m.pane + panes - 1) % panes)
	case "o":
		if m.pane == paneSources {
			m.order = (m.order + 1) % orders
		}
	case "p":
		m.pause()
	case "/":
		m.prompt = prompt{what: askFilter, line: m.filter.text}
		m.mode = modeTyping
	case "esc":
		m.filter = filter{}
	case "?":
		m.mode, m.text = modeText, page{lines: helpLines(m.width), help: true}
	case "enter", "b", "u":
		return m.act(name)
	default:
		m.move(name)
	}
	return nil
}

// act begins what a key does about the row one is on.
func (m *model) act(name string) tea.Cmd {
	rows := m.rows()
	if len(rows) == 0 {
		return nil
	}
	on := rows[m.place(rows)]
	p, ok := on.target()
	if !ok {
		m.notice, m.failed = "this row is about no address", true
		return nil
	}
	// Whoever acts on the first row means the one he sees, not the next to come there.
	m.at[m.pane].key = on.key
	switch name {
	case "enter":
		return m.explain(p)
	case "b":
		m.mode, m.prompt = modeTyping, prompt{what: askLength, whom: p}
	case "u":
		m.mode, m.prompt = modeConfirm, prompt{what: askUnban, whom: p}
	}
	return nil
}

func (m *model) show(p pane) tea.Cmd {
	m.pane = p
	return m.ask()
}

// place is the index of the row one is on.
func (m *model) place(rows []row) int {
	at := &m.at[m.pane]
	if at.key == "" {
		return 0
	}
	for i := range rows {
		if rows[i].key == at.key {
			at.index = i
			return i
		}
	}
	return max(0, min(at.index, len(rows)-1)) // it has gone: what is there now
}

// move goes to another row.
func (m *model) move(name string) {
	rows := m.rows()
	to, ok := moved(name, m.place(rows), len(rows), m.height/2)
	if !ok || len(rows) == 0 {
		return
	}
	m.at[m.pane].index, m.at[m.pane].key = to, rows[to].key
	if to == 0 {
		m.at[m.pane].key = ""
	}
}

// moved is where a key leads from at, among n.
func moved(name string, at, n, page int) (to int, ok bool) {
	switch name {
	case "down", "j":
		at++
	case "up", "k":
		at--
	case "pgdown", "space", "ctrl+f":
		at += page
	case "pgup", "ctrl+b":
		at -= page
	case "home", "g":
		at = 0
	case "end", "G":
		at = n - 1
	default:
		return at, false
	}
	return max(0, min(at, n-1)), true
}

// page is a text that is read: what `why` says, or help.
type page struct {
	about netip.Addr // of `why`
	lines []string
	top   int
	width int // for which lines were made
	help  bool
}

func (m *model) reading(name string) tea.Cmd {
	switch name {
	case "q", "esc", "enter", "?":
		m.mode = modeRows
	default:
		if to, ok := moved(name, m.text.top, len(m.text.lines), m.height/2); ok {
			m.text.top = max(0, min(to, len(m.text.lines)-m.textRoom()))
		} else if !m.text.help && (name == "b" || name == "u") {
			m.mode = modeRows
			return m.act(name)
		}
	}
	return nil
}
