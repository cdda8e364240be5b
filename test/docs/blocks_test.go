package docs

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tree is the root of the source, from here.
var tree = filepath.Join("..", "..")

// document is a text that tells people what to type.
type document struct {
	name   string // from the root of the source
	blocks []block
	inline []string // commands of ours between ` in running text
}

// block is one fenced block, or one example of a manual page.
type block struct {
	at    int    // the line of its first line
	info  string // sh, "sh scanner" for another machine, "" for what is only read
	prose string // since the block before
	lines []string
}

var (
	fenced    = regexp.MustCompile("(?ms)^```([^`\n]*)\n(.*?)^```$")
	inlineRun = regexp.MustCompile("`((?:sudo )?(?:\\./)?portsentry [^`\n]+)`")
	example   = regexp.MustCompile(`(?ms)^\.EX\n(.*?)^\.EE$`)
)

// parseMarkdown finds the blocks of a document.
func parseMarkdown(name, text string) document {
	d := document{name: name}
	prose := 0
	for _, m := range fenced.FindAllStringSubmatchIndex(text, -1) {
		d.add(text, prose, m[0], m[4], text[m[2]:m[3]], text[m[4]:m[5]])
		prose = m[1]
	}
	for _, m := range inlineRun.FindAllStringSubmatch(text, -1) {
		d.inline = append(d.inline, m[1])
	}
	return d
}

// parseMan finds the examples of a manual page as tools/man writes it: commands
// in section 8, a configuration in section 5.
func parseMan(name, text string) document {
	d := document{name: name}
	info := "sh"
	if strings.HasSuffix(name, ".5") {
		info = ""
	}
	plain := strings.NewReplacer(`\&`, "", `\-`, "-", `\(aq`, "'", `\(ga`, "`", `\(ha`, "^", `\(ti`, "~", `\e`, `\`)
	prose := 0
	for _, m := range example.FindAllStringSubmatchIndex(text, -1) {
		d.add(text, prose, m[0], m[2], info, plain.Replace(text[m[2]:m[3]]))
		prose = m[1]
	}
	return d
}

// add adds the block that begins at begin and has its first line at first.
func (d *document) add(text string, prose, begin, first int, info, lines string) {
	b := block{at: 1 + strings.Count(text[:first], "\n"), info: info, prose: text[prose:begin]}
	for line := range strings.Lines(lines) {
		b.lines = append(b.lines, strings.TrimSuffix(line, "\n"))
	}
	d.blocks = append(d.blocks, b)
}

// documents are all of them.
func documents(t *testing.T) []document {
	t.Helper()
	parsers := map[string]func(name, text string) document{
		"README.md": parseMarkdown, "CONTRIBUTING.md": parseMarkdown, "docs/*.md": parseMarkdown,
		"packaging/man/portsentry*": parseMan,
	}
	var out []document
	for _, pattern := range slices.Sorted(maps.Keys(parsers)) {
		paths, err := filepath.Glob(filepath.Join(tree, filepath.FromSlash(pattern)))
		check(t, err)
		if len(paths) == 0 {
			t.Fatalf("nothing is called %s", pattern)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			check(t, err)
			name, err := filepath.Rel(tree, path)
			check(t, err)
			out = append(out, parsers[pattern](filepath.ToSlash(name), string(text)))
		}
	}
	return out
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestParse finds blocks where there are any, with their kind and place.
func TestParse(t *testing.T) {
	const text = "Text with `portsentry status --json` and `portsentry.conf`.\n\n" +
		"```sh\nmake run     # builds\n\nsudo portsentry -c 'a b'\n```\nElsewhere:\n\n```sh scanner\nnmap x\n```\n" +
		"```\nportsentry says\n```\n"
	d := parseMarkdown("x.md", text)
	if !slices.Equal(d.inline, []string{"portsentry status --json"}) {
		t.Errorf("inline %q", d.inline)
	}
	want := []block{
		{4, "sh", "Text with `portsentry status --json` and `portsentry.conf`.\n\n", []string{"make run     # builds", "", "sudo portsentry -c 'a b'"}},
		{11, "sh scanner", "\nElsewhere:\n\n", []string{"nmap x"}},
		{14, "", "\n", []string{"portsentry says"}},
	}
	if !slices.EqualFunc(d.blocks, want, equal) {
		t.Errorf("blocks %+v\nwant %+v", d.blocks, want)
	}
	man := parseMan("x.8", ".SH A\n.EX\n\\&portsentry \\-c \\(aqx\\(aq\n.EE\ntext\n")
	if !slices.EqualFunc(man.blocks, []block{{3, "sh", ".SH A\n", []string{"portsentry -c 'x'"}}}, equal) {
		t.Errorf("manual %+v", man.blocks)
	}
}

func equal(a, b block) bool {
	return a.at == b.at && a.info == b.info && a.prose == b.prose && slices.Equal(a.lines, b.lines)
}
