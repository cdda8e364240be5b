// Command packages writes what the packages hold beside the program: in goes a
// built program, which knows the Go modules it is made of, and the folders of
// their sources; out come their licences, a bill of materials (CycloneDX 1.5,
// JSON) and Debian's changelog. The same program gives the same bytes.
//
//	packages copyright VERSION PROGRAM LICENSE <modules >copyright
//	packages sbom VERSION PROGRAM LICENSE <modules >portsentry.cdx.json
//	packages changelog VERSION MAINTAINER >changelog
//
// Standard input has a line for each module: its path, a tab, its folder; that
// of the standard library is called std. The time is SOURCE_DATE_EPOCH, in
// seconds since 1970.
package main

import (
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Getenv("SOURCE_DATE_EPOCH"), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		os.Exit(1)
	}
}

func run(args []string, epoch string, in io.Reader, out io.Writer) error {
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	at := time.Unix(seconds, 0).UTC()
	switch {
	case len(args) == 3 && args[0] == "changelog":
		_, err := fmt.Fprintf(out, "portsentry (%s) unstable; urgency=medium\n\n"+
			"  * What is new is in CHANGELOG.md beside this file.\n\n -- %s  %s\n",
			args[1], args[2], at.Format(time.RFC1123Z))
		return err
	case len(args) == 4 && (args[0] == "copyright" || args[0] == "sbom"):
	default:
		return fmt.Errorf("%q is nothing to write", args)
	}
	version, path := args[1], args[2]
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	own, err := os.ReadFile(args[3])
	if err != nil {
		return err
	}
	dirs, err := readDirs(in)
	if err != nil {
		return err
	}
	modules, err := modulesOf(info, dirs)
	if err != nil {
		return err
	}
	if args[0] == "copyright" {
		return writeCopyright(out, string(own), modules)
	}
	hash, err := hashOf(path)
	if err != nil {
		return err
	}
	return writeBill(out, program{info, version, hash, license(string(own)), at}, modules)
}

// readDirs reads the folders of modules by path.
func readDirs(in io.Reader) (map[string]string, error) {
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	dirs := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		path, dir, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if ok {
			dirs[path] = dir
		}
	}
	return dirs, nil
}
