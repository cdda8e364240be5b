package tui

import (
	"fmt"
	"strings"

	"portsentry/internal/view"
)

// The least terminal that there is a picture for.
const (
	leastWidth  = 40
	leastHeight = 10
)

// draw makes the screen, if anything has changed.
func (m *model) draw() {
	if !m.dirty || m.width == 0 {
		return
	}
	m.dirty = false
	if m.width < leastWidth || m.height < leastHeight {
		said := fmt.Sprintf("top needs %d columns and %d lines; here are %d and %d", leastWidth, leastHeight, m.width, m.height)
		m.screen = strings.Join(wrapped(said, max(1, m.width), max(1, m.height)), "\n")
		return
	}
	foot := m.foot()
	var lines []string
	if m.mode == modeText {
		m.text.top = max(0, min(m.text.top, len(m.text.lines)-m.textRoom()))
		for _, line := range m.text.lines[m.text.top:min(len(m.text.lines), m.text.top+m.textRoom())] {
			lines = append(lines, shorten(line, m.width))
		}
	} else {
		lines = m.head()
		lines = append(lines, m.table(m.height-len(lines)-len(foot))...)
	}
	for len(lines)+len(foot) < m.height {
		lines = append(lines, "")
	}
	if m.gone != "" && m.colour {
		for i, line := range lines {
			if i > 0 { // which says so
				lines[i] = faint + strings.NewReplacer(plain, plain+faint).Replace(line) + plain
			}
		}
	}
	m.screen = strings.Join(append(lines, foot...), "\n")
}

// textRoom is how many lines of a text are shown at once.
func (m *model) textRoom() int { return max(1, m.height-len(m.foot())) }

// foot are the last lines: a question, what came of the last order, or the keys.
func (m *model) foot() []string {
	var lines []string
	if m.notice != "" {
		as := green
		if m.failed {
			as = red
		}
		for _, line := range wrapped(m.notice, m.width, 4) {
			lines = append(lines, m.painted(as, line))
		}
	}
	if m.mode == modeTyping || m.mode == modeConfirm {
		for _, line := range wrapped(m.prompt.question()+m.prompt.typedSoFar(m.mode), m.width, 3) {
			lines = append(lines, m.painted(bold, line))
		}
		return lines
	}
	if len(lines) > 0 {
		return lines
	}
	return []string{m.painted(faint, m.keyLine())}
}

// typedSoFar is the line with its cursor.
func (p *prompt) typedSoFar(is mode) string {
	if is != modeTyping {
		return ""
	}
	return p.line + "_"
}

// head are the first lines: the answer, what is wrong, the last hour and minute.
func (m *model) head() []string {
	tall := m.height >= 16
	lines := wrapped(m.headline(), m.width, 2)
	for i := range lines {
		as := bold
		if m.gone != "" {
			as = red
		}
		lines[i] = m.painted(as, lines[i])
	}
	wrong := m.wrong()
	most := 1
	if tall {
		most = 3
	}
	for i, said := range wrong[:min(most, len(wrong))] {
		if left := len(wrong) - i - 1; i+1 == most && left > 0 {
			said = tail(said, left, m.width)
		}
		lines = append(lines, m.painted(red, shorten(said, m.width)))
	}
	if r := m.report; r != nil && tall {
		said := fmt.Sprintf("last hour   %s %s, %s %s; %s %s began, %s ended", view.Grouped(r.Sources), view.Plural(int(r.Sources), "source"),
			view.Grouped(r.Probes), view.Plural(int(r.Probes), "probe"), view.Grouped(r.Begun), view.Plural(int(r.Begun), "ban"), view.Grouped(r.Ended))
		lines = append(lines, shorten(said, m.width))
	}
	if m.height >= 14 {
		const label = "last minute "
		drawn, highest := m.bars(m.probes.rates, min(minute, m.width-len(label)-14))
		if highest > 0 {
			drawn += "  up to " + perSecond(max(highest, 0.1))
		} else {
			drawn = "no probes"
		}
		lines = append(lines, label+drawn)
	}
	if tall {
		lines = append(lines, "")
	}
	return lines
}

// tail is a problem that more follow, as it fits.
func tail(said string, left, width int) string {
	more := fmt.Sprintf(" (and %d more: portsentry status)", left)
	if length(more) > width/2 {
		more = fmt.Sprintf(" (+%d)", left)
	}
	return shorten(said, max(leastFree, width-len(more))) + more
}

// headline answers how things are.
func (m *model) headline() string {
	if m.gone != "" {
		return "as it was " + view.Span(m.now.Sub(m.statusAt)) + " ago; asked again every second: " + m.gone
	}
	st := &m.status
	parts := []string{"active for " + view.Span(m.now.Sub(st.Started))}
	if st.BlockTCP == 0 && st.BlockUDP == 0 {
		parts[0] += ", log only"
	}
	rates := orZero(perSecond(m.probes.now())) + " probes/s"
	if d := perSecond(m.dropped.now()); d != "" {
		rates += ", " + d + " dropped/s"
	}
	bans := view.Grouped(uint64(max(0, st.Bans))) + " " + view.Plural(st.Bans, "ban")
	if st.Checked != nil && st.CheckedBans > 0 && st.Bans > 0 {
		bans += fmt.Sprintf(", %s of %s enforced", view.Grouped(uint64(max(0, st.Enforced))), view.Grouped(uint64(st.CheckedBans)))
	}
	return strings.Join(append(parts, rates, bans), "; ")
}

func orZero(s string) string {
	if s == "" {
		return "0"
	}
	return s
}

// wrong are the problems and losses.
func (m *model) wrong() []string {
	var all []string
	for _, p := range m.status.Problems {
		all = append(all, "problem   "+view.Printable(p))
	}
	for _, c := range m.status.Counters {
		if c.Loss && c.Value > 0 {
			all = append(all, "lost      "+view.Grouped(c.Value)+" "+view.Printable(c.Help))
		}
	}
	return all
}

// table are the names of the panes and the rows of the one that is shown, in room lines.
func (m *model) table(room int) []string {
	rows := m.rows()
	lines := m.tabs(m.about(len(rows)))
	room -= len(lines) + 1
	here := m.place(rows)
	at := &m.at[m.pane]
	at.top = max(0, min(at.top, here, len(rows)-room))
	at.top = max(at.top, here-room+1)
	shown := rows[at.top:min(len(rows), at.top+max(0, room))]
	cells := make([][]string, len(shown))
	for i := range shown {
		cells[i] = shown[i].cells()
	}
	columns := m.columns()
	keep := fit(columns, cells, m.width-1)
	titles := make([]string, len(columns))
	for i := range columns {
		titles[i] = columns[i].title
	}
	lines = append(lines, m.painted(faint, " "+m.line(columns, keep, titles, false)))
	for i := range shown {
		line := " " + m.line(columns, keep, cells[i], true)
		if at.top+i == here {
			line = m.painted(reverse, padded(">"+m.line(columns, keep, cells[i], false), m.width, false))
		}
		lines = append(lines, line)
	}
	if len(rows) == 0 {
		lines = append(lines, " nothing yet")
	}
	return lines
}

// tabs names the panes, and says what the rows are: beside them where there is room.
func (m *model) tabs(about string) []string {
	line, bare := "", 0
	for p, name := range paneNames {
		text := fmt.Sprintf("%d %s", p+1, name)
		if pane(p) == m.pane {
			text = "[" + text + "]"
			bare += length(text)
			text = m.painted(bold, text)
		} else {
			bare += length(text)
		}
		if p > 0 {
			line, bare = line+" ", bare+1
		}
		line += text
	}
	if bare+3+length(about) <= m.width {
		return []string{line + "   " + about}
	}
	return []string{line, shorten(about, m.width)}
}
