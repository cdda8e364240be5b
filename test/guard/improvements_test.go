package guard

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// improvement is a row of docs/improvements.md.
type improvement struct {
	id     string
	compat string
	tests  []string // "path: TestName"
}

// defects is how many were found in the old versions. They are numbered through
// three sections of COMPAT.
const defects = 38

// sectionOf gives the section that has the defect with this number.
func sectionOf(n int) string {
	switch {
	case n <= 10:
		return "5.1"
	case n <= 20:
		return "5.2"
	}
	return "5.3"
}

const improvementsHeader = "| id | old (1.x, 2.x) | ours | COMPAT | test |"

var (
	improvementID     = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	improvementCompat = regexp.MustCompile(`^(How \d+|\d\.\d( #\d+)?)(; (How \d+|\d\.\d( #\d+)?))*$`)
	defectNumber      = regexp.MustCompile(`(\d\.\d) #(\d+)`)
	impossible        = regexp.MustCompile("^- (5\\.[123] #\\d+), [^`]+ \\(`([^ `:]+: Test[A-Za-z0-9_]+)`\\)\\.$")
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
		rows = append(rows, improvement{id, compat, strings.Split(strings.Trim(tests, "`"), "`, `")})
	}
	return rows, mistakes
}

// cannotOccur reads the list of defects that there is no room for: number,
// reason and a test for each.
func cannotOccur(text string) (rows []improvement, mistakes []string) {
	_, list, found := strings.Cut(text, "\n## Cannot occur here\n")
	if !found {
		return nil, []string{"there is no list of what cannot occur here"}
	}
	list, _, _ = strings.Cut(list, "\n## ")
	for _, item := range strings.Split(list, "\n- ")[1:] {
		item = "- " + strings.Join(strings.Fields(item), " ")
		m := impossible.FindStringSubmatch(item)
		if m == nil {
			mistakes = append(mistakes, fmt.Sprintf("%q is not of the form: - 5.1 #1, reason (`test`).", item))
			continue
		}
		rows = append(rows, improvement{"cannot occur here: " + m[1], m[1], []string{m[2]}})
	}
	return rows, mistakes
}

// defectsLeft says which defects no row is about, and which numbers are none.
func defectsLeft(rows []improvement) (mistakes []string) {
	seen := make(map[int]bool)
	for _, r := range rows {
		for _, m := range defectNumber.FindAllStringSubmatch(r.compat, -1) {
			n, err := strconv.Atoi(m[2])
			if err != nil || n < 1 || n > defects || m[1] != sectionOf(n) {
				mistakes = append(mistakes, fmt.Sprintf("%s: there is no %s", r.id, m[0]))
				continue
			}
			seen[n] = true
		}
	}
	for n := 1; n <= defects; n++ {
		if !seen[n] {
			mistakes = append(mistakes, fmt.Sprintf("no row is about %s #%d", sectionOf(n), n))
		}
	}
	return mistakes
}

// Every difference that docs/improvements.md claims is held by tests that exist,
// and every defect of the old versions is in it.
func TestImprovements(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "improvements.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows, mistakes := improvements(string(text))
	never, more := cannotOccur(string(text))
	rows = append(rows, never...)
	for _, m := range slices.Concat(mistakes, more, defectsLeft(rows)) {
		t.Error(m)
	}
	if len(rows) < 20 {
		t.Errorf("only %d rows", len(rows))
	}
	_, notYet, ok := strings.Cut(string(text), "\n## Not yet\n")
	if !ok || !strings.Contains(notYet, "\n- ") {
		t.Error("it does not say what is missing")
	}
	there := tests(t)
	for _, r := range rows {
		for _, name := range r.tests {
			if !there[name] {
				t.Errorf("%s: there is no %s", r.id, name)
			}
		}
	}
}

// tests are all there are, as "path: TestName".
func tests(t *testing.T) map[string]bool {
	t.Helper()
	there := make(map[string]bool)
	for _, f := range source(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test && fn.Recv == nil {
				there[f.path+": "+fn.Name.Name] = true
			}
		}
	}
	return there
}

func TestDefectsLeft(t *testing.T) {
	all := improvement{id: "all"}
	for n := 1; n <= defects; n++ {
		all.compat += fmt.Sprintf("; %s #%d", sectionOf(n), n)
	}
	without := func(s string) improvement { return improvement{"x", strings.Replace(all.compat, s, "", 1), nil} }
	for _, tt := range []struct {
		rows     []improvement
		mistakes int
	}{
		{[]improvement{all}, 0},
		{[]improvement{without("; 5.3 #38"), without("; 5.1 #1;")}, 0},
		{[]improvement{without("; 5.3 #38")}, 1},
		{[]improvement{all, {"y", "5.3 #39", nil}}, 1},
		{[]improvement{all, {"y", "5.1 #21; 2.3", nil}}, 1},
		{nil, defects},
	} {
		if got := defectsLeft(tt.rows); len(got) != tt.mistakes {
			t.Errorf("%+v\n%d mistakes, want %d: %q", tt.rows, len(got), tt.mistakes, got)
		}
	}
}

func TestCannotOccur(t *testing.T) {
	const list = "# x\n\n## Cannot occur here\n\ntext\n\n- 5.3 #22, no recursion\n  at all (`a/b_test.go: TestA`).\n\n## Not yet\n\n- 5.1 #1, no\n"
	rows, mistakes := cannotOccur(list)
	if len(mistakes) > 0 || len(rows) != 1 || rows[0].compat != "5.3 #22" || rows[0].tests[0] != "a/b_test.go: TestA" {
		t.Errorf("%+v, %q", rows, mistakes)
	}
	for _, bad := range []string{
		strings.Replace(list, "#22,", "22,", 1), strings.Replace(list, ": TestA", "", 1), strings.Replace(list, "## Cannot occur", "## Cannot", 1),
	} {
		if _, mistakes := cannotOccur(bad); len(mistakes) != 1 {
			t.Errorf("%s\n%q", bad, mistakes)
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
