package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var undoRow = regexp.MustCompile("(?m)^\\| `([^`]*\\$TARGET\\$[^`]*)` \\| `([^`]*)` \\|$")

// TestUndoTable: each KILL_ROUTE of the table in restoring-access.md can be run,
// and its undo takes back what it did.
func TestUndoTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(tree, "docs", "restoring-access.md"))
	check(t, err)
	rows := undoRow.FindAllStringSubmatch(string(text), -1)
	if len(rows) < 5 {
		t.Fatalf("only %d rows: the table is read wrongly", len(rows))
	}
	s := newStage(t)
	s.must("nft 'add table inet filter; add set inet filter scanners { type ipv4_addr; }'")
	ipset := foreign([]string{"ipset"}) == ""
	if ipset {
		s.must("ipset create NAME hash:ip")
	}
	state := func() string {
		all := s.must("ip route show; iptables-save | grep ^-A; nft list set inet filter scanners")
		if ipset {
			all += s.must("ipset save")
		}
		return all
	}
	for _, row := range rows {
		if strings.HasPrefix(row[1], "ipset ") && !ipset {
			t.Logf("not run: %s: ipset is not installed here", row[1])
			continue
		}
		before := state()
		s.must(strings.ReplaceAll(row[1], "$TARGET$", "203.0.113.9"))
		if state() == before {
			t.Errorf("%s does nothing", row[1])
		}
		s.must(row[2])
		if now := state(); now != before {
			t.Errorf("%s leaves\n%s\nand it was\n%s", row[2], now, before)
		}
	}
}
