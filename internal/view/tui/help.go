package tui

// help says what keys do, and what words mean that do not say it themselves.
var help = [][2]string{
	{"1 2 3 4, tab", "events, sources, ports, bans"},
	{"up down, j k", "go through the rows; also page up and down, g, G"},
	{"enter", "why: what the address did, by which rule it is banned"},
	{"b", "ban it: asks for how long, then once more"},
	{"u", "unban it: asks once more"},
	{"/", "show only addresses that begin so, or of a range; esc: all"},
	{"o", "another order of the sources: rate, last seen, packets"},
	{"p", "pause, and go on"},
	{"q, ctrl-c", "end"},
	{"", ""},
	{"a second", "packets, over the last ten seconds or so"},
	{"last hour", "of a port, where it is one of the ten most probed then"},
	{"came too fast", "events that nobody could have read: the sources and the last hour have them all the same"},
	{"verified", "the address cannot be forged"},
}

// helpLines is help in lines of at most width columns.
func helpLines(width int) []string {
	const indent = 15
	lines := []string{"the keys, and some words", ""}
	for _, h := range help {
		text := wrapped(h[1], max(leastFree, width-indent), len(h[1])+1)
		if len(text) == 0 {
			text = []string{""}
		}
		for i, line := range text {
			label := ""
			if i == 0 {
				label = h[0]
			}
			lines = append(lines, padded(label, indent, false)+line)
		}
	}
	return lines
}

// keyLine is what is said of the keys on the last line, as far as there is room: what
// matters most comes first.
func (m *model) keyLine() string {
	order := "tab next"
	if m.pane == paneSources {
		order = "o order"
	}
	words := []string{"enter why", "b ban", "u unban", "? help", "q quit", "/ filter", "p pause", order}
	switch {
	case m.mode == modeText:
		words = []string{"esc back", "up, down: scroll"}
	case m.paused:
		words = append([]string{"PAUSED (p goes on)"}, words[:6]...)
	}
	line := words[0]
	for _, w := range words[1:] {
		next := line + "   " + w
		if length(next) > m.width {
			break
		}
		line = next
	}
	return line
}
