package guard

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// improvement is a row of docs/improvements.md.
type improvement struct {
	id    string
	tests []string // "path: TestName"
}

const improvementsHeader = "| id | old (1.x, 2.x) | ours | COMPAT | test |"

var (
	improvementID     = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	improvementCompat = regexp.MustCompile(`^(How \d+|\d\.\d( #\d+)?)(; (How \d+|\d\.\d( #\d+)?))*$`)
	improvementTests  = regexp.MustCompile("^`[^ `:]+: Test[A-Za-z0-9_]+`(, `[^ `:]+: Test[A-Za-z0-9_]+`)*$")
)

// improvements reads the tables of docs/improvements.md, and says what is wrong
// with them by line.
func improvements(text string) (rows []improvement, mistakes []string) {
	seen := make(map[string]int)
	inTable := false
	for i, line := range strings.Split(text, "\n") {
		wrong := func(format string, a ...any) {
			mistakes = append(mistakes, fmt.Sprintf("line %d: %s", i+1, fmt.Sprintf(format, a...)))
		}
		switch {
		case !strings.HasPrefix(line, "|"):
			inTable = false
			continue
		case !inTable:
			if inTable = true; line != improvementsHeader {
				wrong("a table begins with %s", improvementsHeader)
			}
			continue
		case line == "|---|---|---|---|---|":
			continue
		}
		cells := strings.Split(line, " | ")
		if len(cells) != 5 || !strings.HasPrefix(line, "| ") || !strings.HasSuffix(line, " |") {
			wrong("%d cells, want five between blanks", len(cells))
			continue
		}
		id, old, ours := strings.TrimPrefix(cells[0], "| "), cells[1], cells[2]
		compat, tests := cells[3], strings.TrimSuffix(cells[4], " |")
		switch {
		case !improvementID.MatchString(id):
			wrong("%q is no id", id)
		case seen[id] > 0:
			wrong("%s is there since line %d", id, seen[id])
		case strings.TrimSpace(old) == "" || strings.TrimSpace(ours) == "":
			wrong("%s does not say what differs", id)
		case !improvementCompat.MatchString(compat):
			wrong("%s: %q is no place in COMPAT", id, compat)
		case !improvementTests.MatchString(tests):
			wrong("%s: %q names no test", id, tests)
		}
		seen[id] = i + 1
		rows = append(rows, improvement{id, strings.Split(strings.Trim(tests, "`"), "`, `")})
	}
	return rows, mistakes
}

// Every difference that docs/improvements.md claims is held by tests that exist.
func TestImprovements(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "improvements.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows, mistakes := improvements(string(text))
	for _, m := range mistakes {
		t.Error(m)
	}
	if len(rows) < 20 {
		t.Errorf("only %d rows", len(rows))
	}
	_, notYet, ok := strings.Cut(string(text), "\n## Not yet\n")
	if !ok || !strings.Contains(notYet, "\n- ") {
		t.Error("it does not say what is missing")
	}
	there := make(map[string]bool)
	for _, f := range source(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test && fn.Recv == nil {
				there[f.path+": "+fn.Name.Name] = true
			}
		}
	}
	for _, r := range rows {
		for _, name := range r.tests {
			if !there[name] {
				t.Errorf("%s: there is no %s", r.id, name)
			}
		}
	}
}

func TestImprovementRows(t *testing.T) {
	const good = "| a-1 | x | y | How 1; 5.3 #21 | `a/b_test.go: TestA`, `c_test.go: TestB` |"
	for _, tt := range []struct {
		row      string
		mistakes int
	}{
		{good, 0},
		{good + "\n" + good, 1},
		{strings.Replace(good, "a-1", "A 1", 1), 1},
		{strings.Replace(good, "| y ", "", 1), 1},
		{strings.Replace(good, " | y ", " |  ", 1), 1},
		{strings.Replace(good, "| x |", "|  |", 1), 1},
		{strings.Replace(good, "5.3 #21", "somewhere", 1), 1},
		{strings.Replace(good, ": TestA", "", 1), 1},
		{strings.Replace(good, "TestA`,", "TestA`", 1), 1},
		{strings.Replace(good, "TestB`", "BenchmarkB`", 1), 1},
		{"\n| a | table | of | another | kind |", 1},
	} {
		_, mistakes := improvements("# x\n\n" + improvementsHeader + "\n|---|---|---|---|---|\n" + tt.row + "\n\ntext\n")
		if len(mistakes) != tt.mistakes {
			t.Errorf("%s\n%d mistakes, want %d: %q", tt.row, len(mistakes), tt.mistakes, mistakes)
		}
	}
	rows, _ := improvements(improvementsHeader + "\n" + good)
	if len(rows) != 1 || rows[0].id != "a-1" || len(rows[0].tests) != 2 || rows[0].tests[1] != "c_test.go: TestB" {
		t.Errorf("%+v", rows)
	}
}
