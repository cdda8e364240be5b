package contrib

import (
	"encoding/xml"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// decoder is one <decoder> of Wazuh and OSSEC.
type decoder struct {
	Name     string `xml:"name,attr"`
	Parent   string `xml:"parent"`
	Prematch string `xml:"prematch"`
	Regex    struct {
		Offset string `xml:"offset,attr"`
		Text   string `xml:",chardata"`
	} `xml:"regex"`
	Order string `xml:"order"`
}

// rule is one <rule>.
type rule struct {
	ID          string `xml:"id,attr"`
	Level       string `xml:"level,attr"`
	DecodedAs   string `xml:"decoded_as"`
	IfSID       string `xml:"if_sid"`
	Match       string `xml:"match"`
	Description string `xml:"description"`
}

// osRegex translates an expression of theirs: \S, \d, \w and | mean what they
// mean everywhere, \. is any character, \( is one that counts for itself, ( ) is
// a field, and everything else is itself, [ and . too.
func osRegex(t *testing.T, s string) *regexp.Regexp {
	t.Helper()
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			switch s[i] {
			case 'S', 'd', 'w', '(', ')':
				b.WriteString(`\` + s[i:i+1])
			case '.':
				b.WriteByte('.')
			default:
				t.Fatalf("%q: what is \\%c?", s, s[i])
			}
			if i+1 < len(s) && s[i+1] == '+' {
				i++
				b.WriteByte('+')
			}
		case strings.IndexByte("^$|()", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return regexp.MustCompile(b.String())
}

// osMatch is <match> of a rule: text, with ^, $ and | only.
func osMatch(pattern, line string) bool {
	for alt := range strings.SplitSeq(pattern, "|") {
		text := strings.TrimSuffix(strings.TrimPrefix(alt, "^"), "$")
		switch {
		case alt == "^"+text+"$" && line == text,
			alt == "^"+text && strings.HasPrefix(line, text),
			alt == text+"$" && strings.HasSuffix(line, text),
			alt == text && strings.Contains(line, text):
			return true
		}
	}
	return false
}

func TestWazuh(t *testing.T) {
	var d struct {
		Decoders []decoder `xml:"decoder"`
	}
	parse(t, "<all>"+contribFile(t, "wazuh", "portsentry_decoders.xml")+"</all>", &d)
	var r struct {
		Groups []struct {
			Rules []rule `xml:"rule"`
		} `xml:"group"`
	}
	parse(t, "<all>"+contribFile(t, "wazuh", "portsentry_rules.xml")+"</all>", &r)
	if len(d.Decoders) == 0 || len(r.Groups) != 1 {
		t.Fatalf("%d decoders, %d groups of rules", len(d.Decoders), len(r.Groups))
	}
	seen := make(map[string]bool)
	for _, rule := range r.Groups[0].Rules {
		if seen[rule.ID] || rule.ID < "100000" || rule.ID > "120000" || rule.Level == "" || rule.Description == "" {
			t.Errorf("rule %+v", rule)
		}
		seen[rule.ID] = true
	}

	for _, s := range samples {
		line := strings.TrimRight(s.line, " ")
		if got := decode(t, d.Decoders, line); got != s.decoder {
			t.Errorf("decoded as %q, want %q: %s", got, s.decoder, line)
		}
		if got := lastRule(r.Groups[0].Rules, line); got != s.rule {
			t.Errorf("rule %s, want %s: %s", got, s.rule, line)
		}
	}
}

func parse(t *testing.T, text string, into any) {
	t.Helper()
	if err := xml.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// decode is the decoder that takes line, with the fields that it finds. The
// stock decoders come first.
func decode(t *testing.T, all []decoder, line string) string {
	t.Helper()
	if strings.Contains(line, "attackalert: Connect from host: ") || strings.HasSuffix(line, "is already blocked. Ignoring") {
		return "stock"
	}
	for _, d := range all {
		if d.Parent != "portsentry" {
			t.Errorf("decoder %s: its parent is not the stock one", d.Name)
		}
		at := osRegex(t, d.Prematch).FindStringIndex(line)
		if at == nil {
			continue
		}
		rest := line
		if d.Regex.Offset == "after_prematch" {
			rest = line[at[1]:]
		}
		out := d.Name
		m := osRegex(t, d.Regex.Text).FindStringSubmatch(rest)
		for i, field := range strings.Split(d.Order, ",") {
			if i+1 < len(m) {
				out += fmt.Sprintf(" %s=%s", field, m[i+1])
			}
		}
		return out
	}
	return ""
}

// lastRule goes down the tree: from a rule to the first one below it that matches.
func lastRule(rules []rule, line string) (id string) {
	for at := 0; at < len(rules); at++ {
		switch r := rules[at]; {
		case r.IfSID != id, id == "" && r.DecodedAs != "portsentry", !osMatch(r.Match, line):
		default:
			id, at = r.ID, -1
		}
	}
	return id
}
