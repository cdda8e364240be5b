package config

import (
	"fmt"
	"io"
	"strings"
)

// WriteEffective writes what is in force: a file with every key that parses
// to the same Config, each value with where it comes from. What is watched, and
// how, is a comment on top.
func (c *Config) WriteEffective(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# watched: %s\n", c.watched())
	for _, s := range settings(c) {
		from := "default"
		if n := c.Line(s.key); n > 0 {
			from = fmt.Sprintf("line %d", n)
		}
		fmt.Fprintf(&b, "%s=\"%s\" # %s\n", s.key, s.show(), from)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Value is what is in force for key, as the file would have it; "" where nothing is set.
func (c *Config) Value(key string) string {
	for _, s := range settings(c) {
		if s.key == key {
			return s.show()
		}
	}
	return ""
}

func (c *Config) watched() string {
	var parts []string
	for _, p := range c.protocols() {
		switch n := p.traps.Count(); n {
		case 0:
			parts = append(parts, p.name+" not at all")
		case 1:
			parts = append(parts, fmt.Sprintf("%s port %s (%s)", p.name, p.traps, p.mode.Word(c.Dialect, p.udp)))
		default:
			parts = append(parts, fmt.Sprintf("%d %s ports (%s)", n, p.name, p.mode.Word(c.Dialect, p.udp)))
		}
	}
	return strings.Join(parts, ", ")
}
