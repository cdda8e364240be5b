package cli

import (
	"bufio"
	_ "embed"
	"html/template"
	"time"

	"portsentry/internal/view"
)

//go:embed report.html.tmpl
var reportPage string

// page is a report as the template wants it. All of it is text: html/template makes it
// harmless.
type page struct {
	Host, Period, Version string
	Lines                 []string
	Sections              []pageSection
}

type pageSection struct {
	Title, None string
	Heads       []pageCell
	Rows        [][]pageCell
}

type pageCell struct {
	Text   string
	Number bool
}

// writeHTML writes r as a page that needs nothing but itself: no script, no picture,
// no font.
func writeHTML(w *bufio.Writer, r *view.Report, now time.Time, _ int) error {
	t, err := template.New("report").Parse(reportPage)
	if err != nil {
		return err
	}
	p := page{Host: view.Printable(r.Host), Period: period(r, now.Location()), Version: view.Printable(r.Version), Lines: headlines(r)}
	for _, s := range sections(r, now) {
		if len(s.rows) == 0 && s.none == "" {
			continue
		}
		one := pageSection{Title: s.title, None: s.none, Rows: make([][]pageCell, len(s.rows))}
		for _, c := range s.trimmed() {
			one.Heads = append(one.Heads, pageCell{c.title, c.right})
			for row, text := range c.cells {
				one.Rows[row] = append(one.Rows[row], pageCell{text, c.right})
			}
		}
		p.Sections = append(p.Sections, one)
	}
	return t.Execute(w, p)
}
