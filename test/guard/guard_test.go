// Package guard holds the agreements of the house that the compiler does not:
// which room may import which, where programs may be started, and that every
// room says what it is for. It reads the source, so that nothing can hide
// behind a build cache.
package guard

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "portsentry"

// The rooms. A stage imports leaves and the stages before it.
var (
	leaves = []string{"bpf", "config", "host", "pktgen", "proc"}
	stages = []string{"capture", "decode", "detect", "judge", "respond", "share", "store", "view"}
)

// file is one parsed source file.
type file struct {
	path    string // from the root of the repository, with slashes
	pkg     string // directory below internal/, "" elsewhere
	test    bool
	made    bool // by a program, which says so in the standard header
	imports []string
	ast     *ast.File
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}

func source(t *testing.T) []file {
	t.Helper()
	top := root(t)
	var out []file
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != top) {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		f := file{path: filepath.ToSlash(rel), test: strings.HasSuffix(path, "_test.go"), made: ast.IsGenerated(parsed), ast: parsed}
		if pkg, ok := strings.CutPrefix(filepath.ToSlash(filepath.Dir(rel)), "internal/"); ok {
			f.pkg = pkg
		}
		for _, imp := range parsed.Imports {
			p, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, p)
		}
		out = append(out, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("only %d source files found: the walk is wrong", len(out))
	}
	return out
}

// arrow says why package pkg (below internal/) may not import imported, or "".
func arrow(pkg, imported string) string {
	target, ours := strings.CutPrefix(imported, module+"/internal/")
	if !ours {
		if imported == module+"/packaging" && pkg != "app" {
			return "only app wires the shipped files"
		}
		dot := strings.Contains(strings.Split(imported, "/")[0], ".")
		if dot && slices.Contains(stages, pkg) {
			return "the parent of a stage imports the standard library and earlier parents only"
		}
		return ""
	}
	room, child, _ := strings.Cut(pkg, "/")
	toRoom, toChild, _ := strings.Cut(target, "/")
	switch from, to := slices.Index(stages, room), slices.Index(stages, toRoom); {
	case pkg == "app":
		return ""
	case room == toRoom && child != "" && toChild == "":
		return "" // a child imports its parent
	case slices.Contains(leaves, room):
		return "a leaf imports nothing of ours"
	case from < 0:
		return fmt.Sprintf("%s is no room that ARCHITECTURE.md knows", room)
	case slices.Contains(leaves, toRoom):
		return ""
	case to < 0:
		return "only app sees all"
	case room == toRoom:
		return "children never import each other, and a parent never its children"
	case to > from:
		return "a stage never imports one after it"
	case toChild != "":
		return "ways of doing it are wired by app"
	}
	return ""
}

func TestArrow(t *testing.T) {
	for _, c := range []struct {
		pkg, imports string
		ok           bool
	}{
		{"decode", "portsentry/internal/capture", true},
		{"detect", "portsentry/internal/config", true},
		{"capture", "portsentry/internal/decode", false},
		{"capture/afpacket", "portsentry/internal/capture", true},
		{"capture/afpacket", "portsentry/internal/capture/pcapfile", false},
		{"respond/nft", "portsentry/internal/judge", true},
		{"respond/nft", "portsentry/internal/store", false},
		{"respond", "portsentry/internal/respond/nft", false},
		{"respond", "github.com/google/nftables", false},
		{"respond/nft", "github.com/google/nftables", true},
		{"config", "portsentry/internal/capture", false},
		{"host", "portsentry/internal/config", false},
		{"view", "portsentry/internal/app", false},
		{"app", "portsentry/internal/respond/nft", true},
		{"elsewhere", "portsentry/internal/config", false},
		{"store", "time", true},
	} {
		if why := arrow(c.pkg, c.imports); (why == "") != c.ok {
			t.Errorf("%s imports %s: %q, want ok %v", c.pkg, c.imports, why, c.ok)
		}
	}
}

func TestImportArrows(t *testing.T) {
	for _, f := range source(t) {
		if f.pkg == "" || f.test {
			continue
		}
		for _, imp := range f.imports {
			if why := arrow(f.pkg, imp); why != "" {
				t.Errorf("%s imports %s: %s", f.path, imp, why)
			}
		}
	}
}

// Programs are started in two places only: a packet must never find another
// way to a command line.
func TestWhereProgramsAreStarted(t *testing.T) {
	allowed := []string{"respond/command", "proc"}
	for _, f := range source(t) {
		if f.test || strings.HasPrefix(f.path, "test/") || slices.Contains(allowed, f.pkg) {
			continue
		}
		if slices.Contains(f.imports, "os/exec") {
			t.Errorf("%s imports os/exec", f.path)
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				switch sel.Sel.Name {
				case "ForkExec", "StartProcess", "Exec":
					if x, ok := sel.X.(*ast.Ident); ok && (x.Name == "os" || x.Name == "syscall" || x.Name == "unix") {
						t.Errorf("%s calls %s.%s", f.path, x.Name, sel.Sel.Name)
					}
				}
			}
			return true
		})
	}
}

// Every room says once what it is for. Whoever generates a file does not know.
func TestPackageDocs(t *testing.T) {
	docs := make(map[string]int)
	for _, f := range source(t) {
		if f.test || f.made {
			continue
		}
		dir := filepath.Dir(f.path)
		docs[dir] += 0
		if f.ast.Doc != nil {
			docs[dir]++
		}
	}
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("%s has %d package comments, want one", dir, n)
		}
	}
}

// No hidden wiring: nothing runs before main.
func TestNoInit(t *testing.T) {
	for _, f := range source(t) {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function", f.path)
			}
		}
	}
}

// Tests wait for something to happen, never for time to pass: outside synctest
// bubbles there is no time.Sleep.
func TestNoSleepingTests(t *testing.T) {
	for _, f := range source(t) {
		if !f.test || slices.Contains(f.imports, "testing/synctest") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s sleeps", f.path)
				}
			}
			return true
		})
	}
}

// Package variables are errors and tables, written where they are declared and
// nowhere else.
func TestNoPackageState(t *testing.T) {
	all := source(t)
	vars := make(map[string]bool) // "dir: name"
	specs := make(map[any]bool)   // of package variables
	for _, f := range all {
		if f.test || f.made {
			continue
		}
		for _, d := range f.ast.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				specs[s] = true
				for _, name := range s.(*ast.ValueSpec).Names {
					vars[filepath.Dir(f.path)+": "+name.Name] = true
				}
			}
		}
	}
	for _, f := range all {
		if f.test || f.made || strings.HasPrefix(f.path, "cmd/") { // the linker sets version and commit there
			continue
		}
		written := func(e ast.Expr) {
			id := base(e)
			if id == nil || id.Name == "_" || !vars[filepath.Dir(f.path)+": "+id.Name] {
				return
			}
			// A local variable of that name is resolved to its own declaration.
			if id.Obj == nil || specs[id.Obj.Decl] {
				t.Errorf("%s writes to the package variable %s", f.path, id.Name)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						written(e)
					}
				}
			case *ast.IncDecStmt:
				written(n.X)
			}
			return true
		})
	}
}

// base is the variable that an expression is a part of, nil for none.
func base(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// implicit are methods that the standard library or a dependency calls.
var implicit = []string{
	"String", "Error", "Unwrap", "Is", "Len", "Less", "Swap", "Push", "Pop", "Set", "Type",
	"MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON", "Close", "ServeHTTP", "Init",
}

// forTests are exported for tests alone, with the reason.
var forTests = map[string]string{
	"Ports": "what trap sockets watch at the moment: no counter tells",
}

// Nothing is exported that nobody uses: every exported function, type and
// variable of a room is written somewhere besides where it is declared, and not
// in tests alone. Constants come in sets, which may be whole.
func TestNothingUnused(t *testing.T) {
	all := source(t)
	declared := make(map[string]int)
	where := make(map[string]string)
	used := make(map[string]int)
	declare := func(f *file, name *ast.Ident) {
		if name.IsExported() && strings.HasPrefix(f.path, "internal/") && !f.test && !f.made && !slices.Contains(implicit, name.Name) {
			declared[name.Name]++
			where[name.Name] = f.path
		}
	}
	for i := range all {
		f := &all[i]
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				declare(f, d.Name)
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						declare(f, s.Name)
					case *ast.ValueSpec:
						for _, name := range s.Names {
							if d.Tok == token.VAR {
								declare(f, name)
							}
						}
					}
				}
			}
		}
		// What only tests use is for tests: packages that build packets and the like.
		if f.test && !strings.HasPrefix(f.path, "test/") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				used[id.Name]++
			}
			return true
		})
	}
	for name, n := range declared {
		if used[name] <= n && forTests[name] == "" {
			t.Errorf("%s: nobody uses %s", where[name], name)
		}
	}
}
