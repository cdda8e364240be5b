package config

import (
	"fmt"
	"io"
	"strings"
)

// WriteEffective writes what is in force: a file with every key that parses
// to the same Config, each value with where it comes from.
func (c *Config) WriteEffective(w io.Writer) error {
	var b strings.Builder
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
