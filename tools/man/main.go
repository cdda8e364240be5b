// Command man writes the manual pages: out of the tables here and of
// config.Docs comes roff, portsentry.8 and portsentry.conf.5. It runs when the
// pages are to change, never on a reader's machine: the pages are kept beside
// the source, and a test wants them to be what this writes.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// What the pages say of themselves. The date is that of the last change to what
// they say, so that the same source always gives the same pages.
const (
	version = "3.0.0"
	date    = "2026-11-21"
)

// pages are all that there are, by file name.
func pages() map[string]func() *page {
	return map[string]func() *page{"portsentry.8": portsentry8, "portsentry.conf.5": portsentryConf5}
}

func main() {
	dir := flag.String("o", "packaging/man", "`directory` to write the pages to")
	flag.Parse()
	for name, make := range pages() {
		if err := os.WriteFile(filepath.Join(*dir, name), make().Bytes(), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
