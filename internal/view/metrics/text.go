package metrics

import (
	"bytes"
	"strconv"
	"strings"
)

// Type is what a number may do.
type Type uint8

// Types.
const (
	Gauge   Type = iota // goes up and down
	Counter             // grows until the daemon ends
)

// Family is all samples of one name.
type Family struct {
	Name    string // the whole of it: portsentry_bans
	Help    string
	Type    Type
	Samples []Sample // none: the family is left out
}

// Sample is one number. Labels come from small fixed sets only.
type Sample struct {
	Labels []Label
	Value  float64
}

// Label is one name and value.
type Label struct{ Name, Value string }

// One is a family of one sample without labels.
func One(name, help string, t Type, v float64) Family {
	return Family{Name: name, Help: help, Type: t, Samples: []Sample{{Value: v}}}
}

// Write writes the families in the text format, one after the other
// (prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4).
func Write(b *bytes.Buffer, families []Family) {
	for i := range families {
		f := &families[i]
		if len(f.Samples) == 0 {
			continue
		}
		b.WriteString("# HELP " + f.Name + " " + escapeHelp(f.Help) + "\n# TYPE " + f.Name)
		if f.Type == Counter {
			b.WriteString(" counter\n")
		} else {
			b.WriteString(" gauge\n")
		}
		for j := range f.Samples {
			writeSample(b, f.Name, &f.Samples[j])
		}
	}
}

func writeSample(b *bytes.Buffer, name string, s *Sample) {
	b.WriteString(name)
	for i, l := range s.Labels {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		b.WriteString(sep + l.Name + `="` + escapeValue(l.Value) + `"`)
	}
	if len(s.Labels) > 0 {
		b.WriteByte('}')
	}
	b.WriteByte(' ')
	b.Write(strconv.AppendFloat(b.AvailableBuffer(), s.Value, 'f', -1, 64))
	b.WriteByte('\n')
}

// escapeHelp and escapeValue are the escapes of the format, which is UTF-8.
func escapeHelp(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "\ufffd"))
}

func escapeValue(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(strings.ToValidUTF8(s, "\ufffd"))
}
