package config

import (
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestDocs: every key is described, and nothing that is no key.
func TestDocs(t *testing.T) {
	docs := Docs()
	table := settings(new(Config))
	if len(docs) != len(table) {
		t.Fatalf("%d descriptions of %d keys", len(docs), len(table))
	}
	written := 0
	for _, group := range [][]KeyDoc{docsPorts(), docsCapture(), docsFiles(), docsTrigger(), docsAnswer(), docsCommands()} {
		written += len(group)
	}
	if written != len(docs) {
		t.Errorf("%d descriptions were written: one is double, or of no key", written)
	}
	known := []string{"PORTSENTRY_TARGET"}
	for _, s := range table {
		known = append(known, s.key)
	}
	var groups []string
	for i, d := range docs {
		if d.Key != table[i].key {
			t.Errorf("%s is in the place of %s", d.Key, table[i].key)
		}
		if d.Brief == "" || d.Text == "" || d.Values == "" || d.Group == "" {
			t.Errorf("%s: something is missing: %+v", d.Key, d)
		}
		if !slices.Contains([]string{"1.x", "2.x", "3.0"}, d.Since) {
			t.Errorf("%s: since %q", d.Key, d.Since)
		}
		if n := len(groups); n == 0 || groups[n-1] != d.Group {
			if slices.Contains(groups, d.Group) {
				t.Errorf("%s: the keys of %q do not follow each other", d.Key, d.Group)
			}
			groups = append(groups, d.Group)
		}
		if d.Default != "" {
			if problems := table[i].read(d.Default); problems != nil {
				t.Errorf("%s: its default %q is none: %q", d.Key, d.Default, problems)
			}
		}
		if len(d.Brief) > 60 || strings.HasSuffix(d.Brief, ".") {
			t.Errorf("%s: %q is no short line", d.Key, d.Brief)
		}
		for _, p := range strings.Split(d.Text, "\n\n") {
			if p == "" || p != strings.TrimSpace(p) || strings.Contains(p, "\n") || !strings.HasSuffix(p, ".") ||
				strings.HasPrefix(p, ".") || strings.HasPrefix(p, "'") || strings.ContainsFunc(p, func(r rune) bool { return r > unicode.MaxASCII || r == '\\' }) {
				t.Errorf("%s: %q is no plain paragraph", d.Key, p)
			}
		}
		// What looks like a key is one.
		for _, w := range strings.FieldsFunc(d.Text, func(r rune) bool { return r != '_' && !unicode.IsUpper(r) && !unicode.IsDigit(r) }) {
			if strings.Contains(w, "_") && w != "KILL_" && !slices.Contains(known, w) {
				t.Errorf("%s: the text names %s, which is no key", d.Key, w)
			}
		}
	}
	// The tokens are described where they are used first.
	for _, d := range docs {
		if d.Key != "KILL_ROUTE" {
			continue
		}
		for _, token := range tokens() {
			if !strings.Contains(d.Text, "$"+token+"$") {
				t.Errorf("$%s$ is not described", token)
			}
		}
	}
}
